import { spawn } from "node:child_process";
import { once } from "node:events";
import { existsSync, readFileSync } from "node:fs";
import { join } from "node:path";
import { DatabaseSync } from "node:sqlite";
import { fileURLToPath } from "node:url";
import { expect, test } from "vitest";
import { openSqliteStore } from "../../src/sixid/store/sqlite.ts";
import { temporaryFolder } from "../support/openssl.ts";

const CHILD = fileURLToPath(new URL("./directory-child.ts", import.meta.url));

async function run(...values: string[]): Promise<string | null> {
  const child = spawn(process.execPath, [CHILD, ...values], { stdio: ["ignore", "ignore", "inherit"] });
  const [, signal] = (await once(child, "close")) as [number | null, string | null];
  return signal;
}

test.each(["written", "committed"])(
  "a directory killed when a batch was %s, one time after another, keeps all that it answered",
  async (point) => {
    using folder = temporaryFolder();
    let killed = 0;
    for (let pass = 1; pass <= 40; pass += 1) {
      if ((await run(folder.path, String(pass), `${point}:${pass}`)) === null) break;
      killed += 1;
    }
    expect(killed).toBeGreaterThan(8);
    expect(await run(folder.path, "last", "")).toBeNull();

    const answered = join(folder.path, "answered");
    const lines = existsSync(answered) ? readFileSync(answered, "utf8").trim().split("\n") : [];
    expect(lines.length).toBeGreaterThan(20);
    const store = openSqliteStore(join(folder.path, "directory.db"));
    for (const line of lines) {
      const [what, uuid = "", seq] = line.split(" ");
      const record = await store.record(uuid);
      if (what === "user") expect((await store.userById(uuid))?.name, line).toBe(uuid);
      if (what === "identity") expect(record?.hash, line).toBe(`h-${uuid}`);
      if (what === "addresses") expect(record?.devices[0]?.seq, line).toBeGreaterThanOrEqual(Number(seq));
      if (what === "revoked") expect(await store.revokedDevices(uuid), line).toEqual(["e"]);
    }
    await store.close();
    using database = new DatabaseSync(join(folder.path, "directory.db"));
    expect(database.prepare("pragma integrity_check").all()).toEqual([{ integrity_check: "ok" }]);
  },
);
