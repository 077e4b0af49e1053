import { appendFileSync, closeSync, fsyncSync, openSync } from "node:fs";
import { join } from "node:path";
import type { Cut, CutPoint } from "../../src/delivery/cut-point.ts";
import type { Outgoing } from "../../src/delivery/endpoint.ts";
import type { Kind } from "../../src/delivery/envelope.ts";
import { makeInbox } from "../../src/delivery/inbox.ts";
import { makeOutbox } from "../../src/delivery/outbox.ts";
import { alice, bob, openTestStore, peerOf, ToyDirectory } from "../delivery/party.ts";
import { toyCertificate, toyOpener, toySeal } from "../delivery/toy-seal.ts";

/**
 * Alice's outbox and Bob's inbox in one process, with nothing but a function call between them.
 * `delivery-child.ts DIRECTORY RUN ITEMS [CUTPOINT:N]`: accepts ITEMS things, writing down each that was accepted, ends when
 * all is delivered, and kills itself at the N-th pass of the cut point.
 */
const [directory = "", run = "", items = "0", cutSpec = ""] = process.argv.slice(2);

const cut = killAt(cutSpec);
const log = openSync(join(directory, "accepted"), "a");
const sending = await openTestStore(join(directory, "alice"), { cut });
const receiving = await openTestStore(join(directory, "bob"), { cut });
const inbox = makeInbox({ store: receiving, open: toyOpener(toyCertificate(bob)) });
const outbox = await makeOutbox({
  store: sending,
  directory: new ToyDirectory(),
  seal: toySeal,
  endpointOf: () => ({ deliver: (item, _, signal) => handOver(item, signal) }),
  schedule: [0, 0.05],
  parts: { above: 200_000, bytes: 90_000 },
});
outbox.start();
await Promise.all(Array.from({ length: 4 }, (_, lane) => accept(lane)));
while ((await outbox.receipts({ open: true })).length > 0) {
  await new Promise<void>((resolve) => {
    const off = sending.events.onEvent(() => {
      off();
      resolve();
    });
  });
}
await outbox.stop();
await sending.close();
await receiving.close();
closeSync(log);

async function accept(lane: number): Promise<void> {
  for (let n = lane; n < Number(items); n += 4) {
    const kind: Kind = n % 3 === 0 ? "file" : n % 3 === 1 ? "mail" : "message";
    const id = `${run}-${n}`;
    const size = n % 12 === 0 ? 150_000 : 250_000; // the larger ones go in parts
    const body = kind === "file" ? Buffer.alloc(size, `${id} `) : Buffer.from(id);
    const entity = Buffer.concat([Buffer.from(`Subject: ${id}\r\nMessage-ID: <${id}>\r\n\r\n`), body]);
    const seal = kind === "message" ? "none" : "node";
    await outbox.accept({ kind, from: alice, to: [bob], messageId: id, entity, seal, title: id });
    appendFileSync(log, `${id}\n`);
    fsyncSync(log);
  }
}

async function handOver(item: Outgoing, signal: AbortSignal): Promise<void> {
  const { kind, messageId, title, seal } = item.envelope;
  const peer = peerOf(alice);
  if (seal === "node") {
    await inbox.receiveSealed({ kind, peer, source: item.open(), maxBytes: 1e7, object: item.object }, signal);
    return;
  }
  const bytes = Buffer.concat((await item.open().toArray()) as Buffer[]);
  await inbox.receivePlain({ kind, peer, messageId, bytes, title }, signal);
}

function killAt(spec: string): Cut {
  const [point, count = "1"] = spec.split(":");
  let left = Number(count);
  return (passed: CutPoint) => {
    if (passed !== point) return;
    left -= 1;
    if (left === 0) process.kill(process.pid, "SIGKILL");
  };
}
