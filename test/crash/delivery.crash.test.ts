import { spawn } from "node:child_process";
import { createHash } from "node:crypto";
import { existsSync, readdirSync, readFileSync } from "node:fs";
import { join } from "node:path";
import { fileURLToPath } from "node:url";
import { expect, test } from "vitest";
import { CUT_POINTS } from "../../src/delivery/cut-point.ts";
import type { Store, StoredItem } from "../../src/delivery/store.ts";
import { openTestStore } from "../delivery/party.ts";
import { temporaryFolder } from "../support/tmp.ts";

const CHILD = fileURLToPath(new URL("./delivery-child.ts", import.meta.url));
const ITEMS = "24";

interface Ended {
  code: number | null;
  signal: string | null;
  stderr: string;
}

/** @param killAfter milliseconds after which the child is killed, if it still runs */
function child(args: readonly string[], killAfter?: number): Promise<Ended> {
  return new Promise((resolve, reject) => {
    const running = spawn(process.execPath, [CHILD, ...args], { stdio: ["ignore", "ignore", "pipe"] });
    let stderr = "";
    running.stderr.on("data", (chunk: Buffer) => {
      stderr += chunk.toString();
    });
    const timer = killAfter === undefined ? undefined : setTimeout(() => running.kill("SIGKILL"), killAfter);
    running.on("error", reject);
    running.on("close", (code, signal) => {
      clearTimeout(timer);
      resolve({ code, signal, stderr });
    });
  });
}

/** Everything accepted is delivered, everything delivered is there once and whole, and no traces of the crash are left. */
async function check(directory: string): Promise<void> {
  const path = join(directory, "accepted");
  const accepted = existsSync(path) ? readFileSync(path, "utf8").split("\n").filter(Boolean) : [];
  const alice = await openTestStore(join(directory, "alice"));
  const bob = await openTestStore(join(directory, "bob"));
  const sentItems = await allItems(alice);
  const sent = sentItems.map(({ messageId }) => messageId);
  const received = await allItems(bob);
  const ids = received.map(({ messageId }) => messageId);
  expect(accepted.filter((id) => !sent.includes(id))).toEqual([]);
  expect(ids.toSorted()).toEqual(sent.toSorted());
  expect(new Set(ids).size).toBe(ids.length);
  const receipts = await alice.inside.database.call("receipts", { limit: Number.MAX_SAFE_INTEGER });
  expect(receipts.every(({ state }) => state === "delivered")).toBe(true);
  for (const item of [...received, ...sentItems]) {
    expect(
      createHash("sha256")
        .update(await (item.box === "inbox" ? bob : alice).bytes(item.content))
        .digest("hex"),
    ).toBe(item.content.digest);
  }
  for (const [store, name] of [
    [alice, "alice"],
    [bob, "bob"],
  ] as const) {
    const seqs = await eventNumbers(store);
    expect(seqs).toEqual(seqs.map((_, n) => n + 1));
    expect(readdirSync(join(directory, name, "content", "tmp"))).toEqual([]);
  }
  expect(readdirSync(join(directory, "alice", "attempt"))).toEqual([]);
  expect(readdirSync(join(directory, "bob", "transfer"))).toEqual([]);
  await alice.close();
  await bob.close();
}

/** Page by page: a fast machine sends more than one page has room for. */
async function allItems(store: Store): Promise<StoredItem[]> {
  const all: StoredItem[] = [];
  for (;;) {
    const last = all.at(-1);
    const page = await store.items({ limit: 1_000, ...(last === undefined ? {} : { beforeSeq: last.seq }) });
    if (page.length === 0) return all;
    all.push(...page);
  }
}

async function eventNumbers(store: Store): Promise<number[]> {
  const rows = await store.inside.database.call("eventsAfter", { after: 0, limit: Number.MAX_SAFE_INTEGER });
  return rows.map(({ seq }) => seq);
}

test.each(CUT_POINTS.flatMap((point) => [`${point}:1`, `${point}:5`]))(
  "nothing is lost and nothing is there twice after SIGKILL at %s",
  async (cut) => {
    await using folder = await temporaryFolder();
    const killed = await child([folder.path, "first", ITEMS, cut]);
    expect(killed, killed.stderr).toMatchObject({ signal: "SIGKILL" });
    const again = await child([folder.path, "second", "4"]);
    expect(again, again.stderr).toMatchObject({ code: 0 });
    await check(folder.path);
  },
);

test("nothing is lost and nothing is there twice after SIGKILL at ten moments in a row", async () => {
  await using folder = await temporaryFolder();
  for (let run = 0; run < 10; run += 1) await child([folder.path, `run${run}`, "400"], 250 + run * 40);
  const last = await child([folder.path, "last", "1"]);
  expect(last, last.stderr).toMatchObject({ code: 0 });
  await check(folder.path);
});
