// `npm run bench -- AREA … [--smoke]`: runs the areas named, or all that have a rival.
import { spawnSync } from "node:child_process";
import { existsSync } from "node:fs";
import { fileURLToPath } from "node:url";

const AREAS = ["peertls", "pki", "smime", "irp", "sixid"];
const named = process.argv.slice(2).filter((argument) => !argument.startsWith("--"));
const flags = process.argv.slice(2).filter((argument) => argument.startsWith("--"));

for (const area of named.length > 0 ? named : AREAS) {
  const file = fileURLToPath(new URL(`./${area}.ts`, import.meta.url));
  if (!/^[a-z]+$/.test(area) || !existsSync(file)) {
    process.stderr.write(`there is no benchmark of ${area}; there are: ${AREAS.join(", ")}, nodes\n`);
    process.exit(1);
  }
  const { status } = spawnSync(process.execPath, ["--expose-gc", file, ...flags], { stdio: "inherit" });
  if (status !== 0) process.exit(status ?? 1);
}
