import { SuiteError } from "../pki/suite-error.ts";

/** An absolute path inside a tree: `/`, or segments that are NFC, none empty, `.` or `..`. Only `resolvePath` makes one. */
export type VirtualPath = string & { readonly __brand: "VirtualPath" };

export const ROOT = "/" as VirtualPath;

const MAX_NAME = 255;
const MAX_PATH = 4_096;
const MAX_DEPTH = 64;

/**
 * What a program means by `text` in the folder `cwd` (ftps.md §2.5): `.` and `..` are resolved here, never above `/`.
 * @throws SuiteError syntax (a character or length that no name has), not-found (deeper than anything is)
 */
export function resolvePath(cwd: VirtualPath, text: string): VirtualPath {
  if (/[\u0000-\u001f\u007f\\]/.test(text)) throw refused("characters");
  if (Buffer.byteLength(text) > MAX_PATH) throw refused("length");
  const segments = text.startsWith("/") ? [] : segmentsOf(cwd);
  for (const segment of text.normalize("NFC").split("/")) {
    if (segment === "" || segment === ".") continue;
    if (segment === "..") segments.pop();
    else if (Buffer.byteLength(segment) > MAX_NAME) throw refused("name length");
    else segments.push(segment);
  }
  const path = `/${segments.join("/")}`;
  if (Buffer.byteLength(path) > MAX_PATH) throw refused("length");
  if (segments.length > MAX_DEPTH) throw new SuiteError("not-found", "no folder is so deep", { fault: "peer" });
  return path as VirtualPath;
}

export function segmentsOf(path: VirtualPath): string[] {
  return path === "/" ? [] : path.slice(1).split("/");
}

/** As 257 quotes it (RFC 959 appendix II): each `"` doubled. */
export function quoted(path: string): string {
  return `"${path.replaceAll('"', '""')}"`;
}

function refused(what: string): SuiteError {
  return new SuiteError("syntax", "not a path", { fault: "peer", details: { what } });
}
