import { statSync, symlinkSync } from "node:fs";
import { readFile } from "node:fs/promises";
import { join } from "node:path";
import { expect, test } from "vitest";
import { openLog } from "../../src/node/log.ts";
import { SuiteError } from "../../src/pki/suite-error.ts";
import { temporaryFolder } from "../support/tmp.ts";

test("a log that cannot be written ends nothing", async () => {
  await using folder = await temporaryFolder();
  symlinkSync("/dev/full", join(folder.path, "node.log"));
  const log = openLog(folder.path, "node", "info");
  for (let n = 0; n < 3_000; n += 1) log.error({ n, filler: "x".repeat(1_000) }, "the disk is full");
});

test("lines are the owner's alone; an error is told by code and fields", async () => {
  await using folder = await temporaryFolder();
  const log = openLog(folder.path, "node", "info");
  log.warn({ error: new SuiteError("syntax", "no", { fault: "peer", details: { line: 1, code: 452 } }) }, "refused");
  const file = join(folder.path, "node.log");
  expect(JSON.parse(await readFile(file, "utf8"))).toMatchObject({
    error: { code: "syntax", line: 1 },
    msg: "refused",
  });
  expect(statSync(file).mode & 0o777).toBe(0o600);
});
