import { createHash, randomBytes } from "node:crypto";
import { once } from "node:events";
import { createWriteStream } from "node:fs";
import { join } from "node:path";
import type { NodeEvent } from "../delivery/event-types.ts";
import { domainAnchor, readCertificates } from "../node/trust-rules.ts";
import { parseIdentity } from "../pki/identity.ts";
import type { Status } from "./asking.ts";
import { ask } from "./client.ts";
import { type Actor, rootOf, type Stage } from "./demo-stage.ts";
import { knockAs } from "./impostor.ts";

/** One step: what is shown, and what was seen when it was true. Throws when it was not. */
export interface Step {
  title: string;
  run(): Promise<string>;
}

interface Sent {
  item: string;
  receipts: { status: Status }[];
}

interface Listed {
  id: string;
  kind: string;
  title: string;
}

const ALICE = parseIdentity("alice@alpha.test");
const BOB = parseIdentity("bob@beta.test");
const FILE_BYTES = 20_000_000;
const PATIENCE_MS = 60_000;

/** The story of two people, in order; each step builds on those before it. */
export function demoSteps(stage: Stage): { steps: Step[]; actors: () => { alice: Actor; bob: Actor } } {
  let alpha!: Actor;
  let beta!: Actor;
  let alice!: Actor;
  let bob!: Actor;
  let queued = "";

  const send = (text: string) => stage.ask<Sent>(alice, "send", { to: BOB, text });
  const inbox = (of: Actor) => stage.ask<Listed[]>(of, "inbox", { limit: 200 });
  const messages = async (text: string) => (await inbox(bob)).filter(({ title }) => title === text);

  const steps: Step[] = [
    {
      title: "Two domains, each with a directory and a CA of its own",
      run: async () => {
        [alpha, beta] = (await stage.domains(["alpha.test", "beta.test"])) as [Actor, Actor];
        return `alpha.test answers on port ${alpha.ports["sixid"]?.port}, beta.test on ${beta.ports["sixid"]?.port}`;
      },
    },
    {
      title: "Alice and Bob enrol by invitation; each finds the other across domains",
      run: async () => {
        alice = await stage.person(alpha, "alice", "Alice Example");
        bob = await stage.person(beta, "bob", "Bob Example");
        const record = await found(stage, alice, BOB);
        await found(stage, bob, ALICE);
        return `the directory tells Alice ${record.devices[0]?.addresses[0]?.host} ${record.devices[0]?.addresses[0]?.port} and the certificates of ${record.identity}`;
      },
    },
    {
      title: "Bob does not know Alice: refused in the handshake, her request is kept",
      run: async () => {
        const { receipts } = await send("Hello Bob");
        check(receipts[0]?.status.reason === "not-admitted", "Alice's message is not held");
        const denied = await event(stage, bob, "peer.denied", (one) => one.claims.includes(ALICE));
        await event(stage, bob, "request.received", (one) => one.from === ALICE);
        check((await inbox(bob)).length === 0, "something got in");
        return `TLS alert ${denied.alert} (${denied.reason}); Bob sees a request of ${ALICE}`;
      },
    },
    {
      title: "Bob accepts, and what waited for him comes at once",
      run: async () => {
        await stage.ask(bob, "requests.decide", { from: ALICE, decision: "accept" });
        await event(stage, alice, "receipt.changed", (one) => one.state === "delivered");
        const [message] = await messages("Hello Bob");
        check(message !== undefined, "the message is not in Bob's inbox");
        return `in Bob's inbox: "${message.title}"`;
      },
    },
    {
      title: "A mail, sealed to Bob and signed by Alice",
      run: async () => {
        const { item } = await stage.ask<Sent>(alice, "mail", { to: [BOB], subject: "Lunch", text: "At noon?\n" });
        await delivered(stage, alice, item);
        const mail = (await inbox(bob)).find(({ kind }) => kind === "mail");
        check(mail !== undefined, "there is no mail in Bob's inbox");
        const read = await stage.ask<{ subject: string; text: string; protection: string }>(bob, "read", {
          id: mail.id,
        });
        check(read.subject === "Lunch" && read.text.trim() === "At noon?", "subject or text are not what Alice wrote");
        check(read.protection.startsWith(`sealed, signed by ${ALICE}`), "the seal was not verified");
        const original = await bytesOf(bob, mail.id, "sealed");
        check(!original.includes("At noon?") && !original.includes("Lunch"), "the sealed original shows the text");
        return `${read.protection}; the original on the wire shows neither subject nor text`;
      },
    },
    {
      title: "A file of 20 MB, sealed, over FTPS",
      run: async () => {
        const path = join(stage.folder, "holiday.mp4");
        const digest = await writeRandom(path, FILE_BYTES);
        const { item } = await stage.ask<Sent>(alice, "file", { to: BOB, path });
        await delivered(stage, alice, item);
        const file = (await inbox(bob)).find(({ kind }) => kind === "file");
        check(file !== undefined, "there is no file in Bob's inbox");
        const received = createHash("sha256")
          .update(await bytesOf(bob, file.id, "raw"))
          .digest("hex");
        check(received === digest, "the file is not the same");
        return `SHA-256 ${digest.slice(0, 16)}… at both ends`;
      },
    },
    {
      title: "A stranger who calls himself Alice, by a CA of his own",
      run: async () => {
        const record = await found(stage, alice, BOB);
        const [anchor] = readCertificates(rootOf(beta.home));
        check(anchor !== undefined, "no root");
        const alert = await knockAs(ALICE, {
          expected: { identity: BOB, fingerprints: record.devices.map(({ fingerprint }) => fingerprint) },
          at: bob.ports["peer"] ?? { host: "::1", port: 0 },
          anchor: domainAnchor("beta.test", anchor),
        });
        const denied = await event(stage, bob, "peer.denied", (one) => one.alert === 48);
        check(alert === 48, "the stranger was let in");
        return `dropped in the handshake: TLS alert ${alert}, ${denied.reason}`;
      },
    },
    {
      title: "Bob's node moves to another port; Alice's next message finds him",
      run: async () => {
        const before = bob.ports["peer"]?.port;
        await stage.end(bob, "SIGTERM");
        await stage.start(bob);
        const { item } = await send("Where are you?");
        await delivered(stage, alice, item);
        check(bob.ports["peer"]?.port !== before, "Bob did not move");
        check((await messages("Where are you?")).length === 1, "the message is not there once");
        return `port ${before} → ${bob.ports["peer"]?.port}, found through the directory`;
      },
    },
    {
      title: "Bob's node is killed; Alice's mail is queued",
      run: async () => {
        await stage.end(bob, "SIGKILL");
        const { item, receipts } = await stage.ask<Sent>(alice, "mail", {
          to: [BOB],
          subject: "While you were away",
          text: "I wrote this.\n",
        });
        queued = item;
        check(receipts[0]?.status.state === "queued", "the mail is not queued");
        return `queued: ${receipts[0]?.status.why}`;
      },
    },
    {
      title: "Bob is back: the mail arrives, exactly once",
      run: async () => {
        await stage.start(bob);
        await delivered(stage, alice, queued);
        const arrived = (await inbox(bob)).filter(({ title }) => title === "While you were away");
        check(arrived.length === 1, `it is there ${arrived.length} times`);
        const waiting = await stage.ask<unknown[]>(alice, "queue");
        check(waiting.length === 0, "something still waits");
        return "one copy in Bob's inbox, nothing waits at Alice's";
      },
    },
  ];
  return { steps, actors: () => ({ alice, bob }) };
}

function check(condition: boolean, otherwise: string): asserts condition {
  if (!condition) throw new Error(otherwise);
}

interface Found {
  identity: string;
  devices: { fingerprint: never; addresses: { host: string; port: number }[] }[];
}

/** Asks until the record has an address: a node announces itself a moment after its ports are open. */
async function found(stage: Stage, by: Actor, whom: string): Promise<Found> {
  const until = Date.now() + PATIENCE_MS;
  for (;;) {
    const record = await stage.ask<Found>(by, "lookup", { identity: whom }).catch(() => undefined);
    if (record !== undefined && (record.devices[0]?.addresses.length ?? 0) > 0) return record;
    check(Date.now() < until, `${whom} is not found`);
  }
}

/** The first event of the node that fits, kept or still to come. */
async function event<T extends NodeEvent["type"]>(
  stage: Stage,
  of: Actor,
  type: T,
  fits: (body: NodeEvent & { type: T }) => boolean,
): Promise<NodeEvent & { type: T }> {
  const signal = AbortSignal.timeout(PATIENCE_MS);
  let after = 0;
  while (!signal.aborted) {
    const news = await stage.ask<{ seq: number; body: NodeEvent }[]>(of, "events", { after, waitSeconds: 5 });
    for (const { seq, body } of news) {
      after = seq;
      if (body.type === type && fits(body as NodeEvent & { type: T })) return body as NodeEvent & { type: T };
    }
  }
  throw new Error(`${of.name} saw no ${type}`);
}

function delivered(stage: Stage, from: Actor, item: string): Promise<unknown> {
  return event(stage, from, "receipt.changed", (one) => one.item === item && one.state === "delivered");
}

async function bytesOf(of: Actor, id: string, form: "raw" | "sealed"): Promise<Buffer> {
  const pieces: Buffer[] = [];
  const signal = AbortSignal.timeout(PATIENCE_MS);
  await ask(of.home.control, "read.bytes", { id, form }, signal, ({ data }: { data: string }) => {
    pieces.push(Buffer.from(data, "base64"));
  });
  return Buffer.concat(pieces);
}

/** @returns the SHA-256 of what was written */
async function writeRandom(path: string, size: number): Promise<string> {
  const hash = createHash("sha256");
  const file = createWriteStream(path);
  for (let left = size; left > 0; ) {
    const piece = randomBytes(Math.min(left, 1_048_576));
    hash.update(piece);
    if (!file.write(piece)) await once(file, "drain");
    left -= piece.length;
  }
  file.end();
  await once(file, "close");
  return hash.digest("hex");
}
