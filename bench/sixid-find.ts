// What a look-up costs in a directory's store: `node --expose-gc bench/sixid-find.ts FILE IDENTITIES LOOKUPS`. Prints JSON.
import { readFileSync } from "node:fs";
import { openSqliteStore } from "../src/sixid/store/sqlite.ts";

const [file = "", identities = "", lookups = ""] = process.argv.slice(2);
const store = openSqliteStore(file);
let state = 1;
/** Anybody of them, not in order, and the same in every run. */
const someone = () => {
  state = (Math.imul(state, 1_664_525) + 1_013_904_223) >>> 0;
  return { kind: "identity", value: `p${state % Number(identities)}@bench.test` } as const;
};
const look = async (times: number) => {
  for (let n = 0; n < times; n += 1) if ((await store.find(someone())) === undefined) throw new Error("not found");
};
await look(Number(lookups)); // warm
const before = process.cpuUsage();
await look(Number(lookups));
const { user, system } = process.cpuUsage(before);
globalThis.gc?.();
const rssAnon = Number(/RssAnon:\s+(\d+)/.exec(readFileSync("/proc/self/status", "utf8"))?.[1]);
process.stdout.write(`${JSON.stringify({ microseconds: (user + system) / Number(lookups), rssAnon })}\n`);
await store.close();
