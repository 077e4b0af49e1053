import { closeSync, fsyncSync, openSync, writeSync } from "node:fs";
import { join } from "node:path";
import { parseIdentity } from "../../src/pki/identity.ts";
import { openSqliteStore } from "../../src/sixid/store/sqlite.ts";

/**
 * A directory that writes down what it answered, many writes at a time, and is killed at the N-th pass of a cut point:
 * `directory-child.ts DIRECTORY RUN POINT:N`.
 */
const [directory = "", run = "", spec = ""] = process.argv.slice(2);
const [point, pass = "1"] = spec.split(":");
const cut = point === "written" || point === "committed" ? ({ point, pass: Number(pass) } as const) : undefined;
const store = openSqliteStore(join(directory, "directory.db"), cut);
const log = openSync(join(directory, "answered"), "a");
const answered = (...words: (string | number)[]) => {
  writeSync(log, `${words.join(" ")}\n`);
  fsyncSync(log);
};
for (let n = 0; n < 4; n += 1) {
  const uuid = `${run}-${n}`;
  if (!(await store.addUser({ uuid, identity: parseIdentity(`p${uuid}@alpha.test`), name: uuid }))) continue;
  answered("user", uuid);
  const first = { seq: 1, hash: `h-${uuid}`, jws: `j-${uuid}`, devices: ["d", "e"] };
  if ((await store.putIdentity(uuid, first, "")) === "stored") answered("identity", uuid);
  await Promise.all(
    Array.from({ length: 10 }, async (_, seq) => {
      const next = { seq: seq + 1, jws: `a${seq + 1}`, seen: 1 };
      if ((await store.putAddresses(uuid, "d", next)) === "stored") answered("addresses", uuid, seq + 1);
    }),
  );
  await store.dropDevice(uuid, "e");
  answered("revoked", uuid);
}
await store.close();
closeSync(log);
