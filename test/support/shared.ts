import { existsSync } from "node:fs";
import { resolve } from "node:path";

/**
 * Folder `path` of the shared test data (`$SIXTALK_SHARED`, or `../shared` beside the repository). Undefined where an
 * outsider has none: the caller's tests are skipped, which is printed. With `CI=true` its absence is an error.
 */
export function sharedFolder(path: string): string | undefined {
  const root = process.env["SIXTALK_SHARED"] ?? resolve(import.meta.dirname, "../../../shared");
  const folder = resolve(root, path);
  if (existsSync(folder)) return folder;
  const reason = `no shared test data at ${folder} (SIXTALK_SHARED points elsewhere)`;
  if (process.env["CI"] === "true") throw new Error(reason);
  console.warn(`SKIP ${path}: ${reason}`);
  return undefined;
}
