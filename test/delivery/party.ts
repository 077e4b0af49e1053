import { randomBytes } from "node:crypto";
import type { Cut } from "../../src/delivery/cut-point.ts";
import { noCut } from "../../src/delivery/cut-point.ts";
import type { Outgoing } from "../../src/delivery/endpoint.ts";
import type { Kind } from "../../src/delivery/envelope.ts";
import type { NodeEvent } from "../../src/delivery/event-types.ts";
import type { StoredEvent } from "../../src/delivery/events.ts";
import { type Inbox, makeInbox } from "../../src/delivery/inbox.ts";
import { makeOutbox, type Outbox, type OutboxOptions } from "../../src/delivery/outbox.ts";
import { openStore, type Store } from "../../src/delivery/store.ts";
import { systemTime, type Timekeeper } from "../../src/delivery/time.ts";
import type { PeerCertificate } from "../../src/pki/certificate.ts";
import { type Identity, parseIdentity } from "../../src/pki/identity.ts";
import { silentLog } from "../../src/pki/log.ts";
import { SuiteError, type SuiteErrorCode } from "../../src/pki/suite-error.ts";
import type { Directory, PeerRecord } from "../../src/sixid/directory.ts";
import { toyCertificate, toyOpener, toySeal } from "./toy-seal.ts";

export const alice = parseIdentity("alice@a.test");
export const bob = parseIdentity("bob@b.test");
export const carol = parseIdentity("carol@c.test");

export function openTestStore(
  directory: string,
  o: { time?: Timekeeper; cut?: Cut; minFreeBytes?: number; random?: (length: number) => Buffer } = {},
): Promise<Store> {
  return openStore({
    directory,
    time: o.time ?? systemTime(),
    random: o.random ?? randomBytes,
    log: silentLog,
    cut: o.cut ?? noCut,
    minFreeBytes: o.minFreeBytes ?? 0,
  });
}

/** A directory whose answers a test sets: a record, or the failure of the look-up. */
export class ToyDirectory implements Directory {
  readonly records = new Map<Identity, PeerRecord>();
  readonly lookups: { identity: Identity; fresh: boolean }[] = [];
  failure: SuiteError | undefined;

  constructor(people: readonly Identity[] = [alice, bob, carol]) {
    for (const one of people) this.records.set(one, record(one));
  }

  async lookup(identity: Identity, options: { fresh?: boolean }, signal: AbortSignal): Promise<PeerRecord> {
    this.lookups.push({ identity, fresh: options.fresh ?? false });
    signal.throwIfAborted();
    if (this.failure !== undefined) throw this.failure;
    const found = this.records.get(identity);
    if (found === undefined) throw failure("unknown-recipient", { fault: "peer" });
    return found;
  }

  publishAddresses(): Promise<void> {
    return Promise.resolve();
  }
}

export function record(
  identity: Identity,
  o: { encryption?: readonly PeerCertificate[]; trust?: PeerRecord["trust"] } = {},
): PeerRecord {
  return {
    identity,
    uuid: identity,
    name: identity,
    devices: [],
    encryption: o.encryption ?? [toyCertificate(identity)],
    chain: [],
    capabilities: { cms: ["gcm"] },
    seq: 1,
    stale: false,
    trust: o.trust ?? "pinned",
  };
}

export function failure(
  code: SuiteErrorCode,
  o: { fault?: "peer" | "local" | "service"; temporary?: boolean } = {},
): SuiteError {
  return new SuiteError(code, code, { fault: o.fault ?? "peer", temporary: o.temporary ?? false });
}

export function unreachable(): SuiteError {
  return failure("unreachable", { temporary: true });
}

/** What an endpoint was asked to deliver; a test answers it. */
export interface Delivery {
  item: Outgoing;
  to: Identity;
  signal: AbortSignal;
  bytes(): Promise<Buffer>;
  yes(): void;
  no(error: SuiteError): void;
}

/** An endpoint whose deliveries a test answers one by one, or by `answer` as they come. */
export class ToyEndpoint {
  readonly deliveries: Delivery[] = [];
  answer: ((delivery: Delivery) => void | Promise<void>) | undefined;
  #arrived = Promise.withResolvers<void>();

  deliver(item: Outgoing, to: PeerRecord, signal: AbortSignal): Promise<void> {
    const { promise, resolve, reject } = Promise.withResolvers<void>();
    const delivery: Delivery = {
      item,
      to: to.identity,
      signal,
      bytes: async () => Buffer.concat((await item.open().toArray()) as Buffer[]),
      yes: resolve,
      no: reject,
    };
    signal.addEventListener("abort", () => reject(failure("cancelled", { fault: "local", temporary: true })));
    this.deliveries.push(delivery);
    void this.answer?.(delivery);
    this.#arrived.resolve();
    this.#arrived = Promise.withResolvers();
    return promise;
  }

  /** The delivery number `n` (from 0), once it was asked for. */
  async delivery(n: number): Promise<Delivery> {
    for (;;) {
      const found = this.deliveries[n];
      if (found !== undefined) return found;
      await within(this.#arrived.promise, `delivery ${n}`);
    }
  }
}

/** One person's outbox with a directory and an endpoint in the test's hands. */
export async function sender(
  directory: string,
  o: { time?: Timekeeper; cut?: Cut; people?: readonly Identity[]; minFreeBytes?: number } & Partial<
    Pick<OutboxOptions, "schedule" | "parts">
  > = {},
): Promise<{ store: Store; outbox: Outbox; sixid: ToyDirectory; endpoint: ToyEndpoint } & AsyncDisposable> {
  const store = await openTestStore(directory, o);
  const sixid = new ToyDirectory(o.people);
  const endpoint = new ToyEndpoint();
  const outbox = await makeOutbox({
    store,
    directory: sixid,
    seal: toySeal,
    endpointOf: () => endpoint,
    ...(o.schedule === undefined ? {} : { schedule: o.schedule }),
    ...(o.parts === undefined ? {} : { parts: o.parts }),
  });
  outbox.start();
  return {
    store,
    outbox,
    sixid,
    endpoint,
    async [Symbol.asyncDispose]() {
      const stopped = outbox.stop();
      for (const delivery of endpoint.deliveries) delivery.no(unreachable()); // stopping waits for what is being said
      await stopped;
      await store.close();
    },
  };
}

/** One person's inbox. */
export async function receiver(
  directory: string,
  o: {
    time?: Timekeeper;
    cut?: Cut;
    owner?: Identity;
    minFreeBytes?: number;
    quota?: Parameters<typeof makeInbox>[0]["quota"];
  } = {},
): Promise<{ store: Store; inbox: Inbox } & AsyncDisposable> {
  const store = await openTestStore(directory, o);
  const open = toyOpener(toyCertificate(o.owner ?? bob));
  const inbox = makeInbox({ store, open, ...(o.quota === undefined ? {} : { quota: o.quota }) });
  return { store, inbox, [Symbol.asyncDispose]: () => store.close() };
}

export function peerOf(identity: Identity) {
  const certificate = toyCertificate(identity);
  return { identity, fingerprint: certificate.fingerprint, certificate };
}

export function draft(
  text: string,
  o: { to?: readonly Identity[]; kind?: Kind; seal?: "node" | "none"; id?: string; lifetimeSeconds?: number } = {},
) {
  const { to = [bob], kind = "message", seal = "node", id = text } = o;
  const entity = Buffer.from(`Subject: ${text}\r\nMessage-ID: <${id}>\r\n\r\n${text}`);
  const lifetime = o.lifetimeSeconds === undefined ? {} : { lifetimeSeconds: o.lifetimeSeconds };
  return { kind, from: alice, to, messageId: id, entity, seal, title: text, ...lifetime };
}

/** Resolves at the first event from now on that fits; the test fails after ten seconds without one. */
export function nextEvent(store: Store, fits: (body: NodeEvent) => boolean): Promise<StoredEvent> {
  return within(
    new Promise((resolve) => {
      const off = store.events.onEvent((event) => {
        if (!fits(event.body)) return;
        off();
        resolve(event);
      });
    }),
    "event",
  );
}

export function receiptChange(state: string): (body: NodeEvent) => boolean {
  return (body) => body.type === "receipt.changed" && body.state === state;
}

export async function within<T>(promise: Promise<T>, what: string): Promise<T> {
  let timer: NodeJS.Timeout | undefined;
  const late = new Promise<never>((_, reject) => {
    timer = setTimeout(() => reject(new Error(`${what}: nothing within ten seconds`)), 10_000);
  });
  try {
    return await Promise.race([promise, late]);
  } finally {
    clearTimeout(timer);
  }
}
