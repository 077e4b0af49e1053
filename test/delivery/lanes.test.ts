import { describe, expect, test } from "vitest";
import type { Kind } from "../../src/delivery/envelope.ts";
import { type DueRow, Lanes, laneOf } from "../../src/delivery/lanes.ts";
import { parseIdentity } from "../../src/pki/identity.ts";
import { alice, bob, carol } from "./party.ts";

const MIB = 1_048_576;
const all = () => true;

function rows(...specs: [row: number, kind: Kind, size: number][]): DueRow[] {
  return specs.map(([row, kind, size]) => ({ row, item: `i${row}`, kind, size }));
}

describe("the lane of a thing", () => {
  const table: [Kind, number, "talk" | "bulk"][] = [
    ["message", 10, "talk"],
    ["message", 5 * MIB, "talk"],
    ["mail", MIB, "talk"],
    ["mail", MIB + 1, "bulk"],
    ["file", 1, "bulk"],
  ];
  test.each(table)("%s of %d bytes goes by %s", (kind, size, lane) => {
    expect(laneOf(kind, size)).toBe(lane);
  });
});

describe("turns", () => {
  test("a peer has one attempt a lane at a time, and a file does not keep a message waiting", () => {
    const lanes = new Lanes();
    lanes.fill(bob, "bulk", rows([1, "file", 1e9], [2, "file", 1]));
    lanes.fill(bob, "talk", rows([3, "message", 1], [4, "message", 1]));
    expect(lanes.next("bulk", all)?.row.row).toBe(1);
    expect(lanes.next("bulk", all)).toBeUndefined();
    expect(lanes.next("talk", all)?.row.row).toBe(3);
    expect(lanes.next("talk", all)).toBeUndefined();
    lanes.finished(bob, "talk");
    expect(lanes.next("talk", all)?.row.row).toBe(4);
  });

  test("go round the peers, whoever has more to send", () => {
    const lanes = new Lanes();
    lanes.fill(alice, "talk", rows([1, "message", 1], [2, "message", 1], [3, "message", 1]));
    lanes.fill(bob, "talk", rows([4, "message", 1]));
    lanes.fill(carol, "talk", rows([5, "message", 1]));
    const order: number[] = [];
    for (;;) {
      const turn = lanes.next("talk", all);
      if (turn === undefined) break;
      order.push(turn.row.row);
      lanes.finished(turn.peer, "talk");
    }
    expect(order).toEqual([1, 4, 5, 2, 3]);
  });

  test("never exceed the slots of a lane over all peers", () => {
    const lanes = new Lanes({ talk: 2, bulk: 1 });
    for (const peer of [alice, bob, carol]) lanes.fill(peer, "talk", rows([1, "message", 1]));
    expect(lanes.next("talk", all)).toBeDefined();
    expect(lanes.next("talk", all)).toBeDefined();
    expect(lanes.next("talk", all)).toBeUndefined();
    lanes.finished(alice, "talk");
    expect(lanes.next("talk", all)?.peer).toBe(carol);
  });

  test("pass over a peer that is not ready", () => {
    const lanes = new Lanes();
    lanes.fill(alice, "talk", rows([1, "message", 1]));
    lanes.fill(bob, "talk", rows([2, "message", 1]));
    expect(lanes.next("talk", (peer) => peer !== alice)?.peer).toBe(bob);
  });

  test("give large mail its share beside files: bytes are counted, not turns", () => {
    const lanes = new Lanes();
    const files = Array.from({ length: 10 }, (_, n): [number, Kind, number] => [n, "file", 10 * MIB]);
    const mails = Array.from({ length: 100 }, (_, n): [number, Kind, number] => [100 + n, "mail", 2 * MIB]);
    lanes.fill(bob, "bulk", rows(...files, ...mails));
    const sent = { file: 0, mail: 0, message: 0 };
    while (sent.file < 5) {
      const turn = lanes.next("bulk", all);
      if (turn === undefined) break;
      sent[turn.row.kind] += 1;
      lanes.finished(bob, "bulk");
    }
    expect(sent.mail).toBeGreaterThanOrEqual(20);
    expect(sent.mail).toBeLessThanOrEqual(26);
  });

  test("a file of 100 GiB has its turn without its rounds being played", () => {
    const lanes = new Lanes();
    lanes.fill(bob, "bulk", rows([1, "file", 100 * 1024 * MIB]));
    expect(lanes.next("bulk", all)?.row.row).toBe(1);
  });

  test("serve every one of 1,000 peers before anybody's second row", () => {
    const lanes = new Lanes({ talk: 64, bulk: 8 });
    const peers = Array.from({ length: 1_000 }, (_, n) => parseIdentity(`p${n}@x.test`));
    for (const peer of peers) lanes.fill(peer, "talk", rows([1, "message", 1], [2, "message", 1]));
    const firsts: number[] = [];
    for (let n = 0; n < 1_000; n += 1) {
      const turn = lanes.next("talk", all);
      if (turn === undefined) throw new Error("nobody's turn");
      firsts.push(turn.row.row);
      lanes.finished(turn.peer, "talk");
    }
    expect(firsts.every((row) => row === 1)).toBe(true);
  });
});
