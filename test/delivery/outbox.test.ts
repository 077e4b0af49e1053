import { randomBytes } from "node:crypto";
import { readdir } from "node:fs/promises";
import { join } from "node:path";
import { describe, expect, test } from "vitest";
import type { ItemId, Receipt } from "../../src/delivery/envelope.ts";
import { makeOutbox } from "../../src/delivery/outbox.ts";
import { temporaryFolder } from "../support/tmp.ts";
import { VirtualTime } from "../support/virtual-time.ts";
import {
  alice,
  bob,
  carol,
  type Delivery,
  draft,
  failure,
  nextEvent,
  receiptChange,
  record,
  sender,
  ToyDirectory,
  ToyEndpoint,
  unreachable,
  within,
} from "./party.ts";
import { toyCertificate, toySeal } from "./toy-seal.ts";

type Sender = Awaited<ReturnType<typeof sender>>;

const MINUTE = 60_000;
const HOUR = 60 * MINUTE;
const DAY = 24 * HOUR;

async function stateOf(party: Sender, item: ItemId): Promise<Receipt["status"] | undefined> {
  return (await party.outbox.receipts({ item }))[0]?.status;
}

/** Fails the delivery and waits until that is noted. */
async function fail(party: Sender, delivery: Delivery, error: Parameters<Delivery["no"]>[0], state = "queued") {
  const noted = nextEvent(party.store, receiptChange(state));
  delivery.no(error);
  return (await noted).body;
}

async function succeed(party: Sender, delivery: Delivery) {
  const noted = nextEvent(party.store, receiptChange("delivered"));
  delivery.yes();
  await noted;
}

/** Resolves when everything asked of the database so far has been done, and what follows from it was begun. */
async function quiet(party: Sender): Promise<void> {
  for (let n = 0; n < 25; n += 1) {
    await party.store.inside.database.call("eventBounds");
    await new Promise((resolve) => setImmediate(resolve));
  }
}

describe("accepting", () => {
  test("gives one row to each recipient, and each is delivered on its own", async () => {
    await using folder = await temporaryFolder();
    await using party = await sender(folder.path);
    const item = await party.outbox.accept(draft("hello", { to: [bob, carol, bob] }));
    const first = await party.endpoint.delivery(0);
    const second = await party.endpoint.delivery(1);
    expect([first.to, second.to].sort()).toEqual([bob, carol]);
    await succeed(party, first);
    expect((await party.outbox.receipts({ item })).map(({ status }) => status.state).sort()).toEqual([
      "delivered",
      "sending",
    ]);
    await succeed(party, second);
    expect(await party.outbox.settled(item, AbortSignal.timeout(5_000))).toBe("delivered");
    expect(await party.outbox.receipts({ open: true })).toEqual([]);
  });

  test("hands out what was accepted, sealed to the recipient's certificate, and shows it among what was sent", async () => {
    await using folder = await temporaryFolder();
    await using party = await sender(folder.path);
    const item = await party.outbox.accept({ ...draft("hello"), outerHeader: "Subject: [...]\r\n" });
    const delivery = await party.endpoint.delivery(0);
    const bytes = (await delivery.bytes()).toString();
    expect(bytes).toContain(`"to":"${toyCertificate(bob).sha256}"`);
    expect(bytes.endsWith("\r\n\r\nhello")).toBe(true);
    expect(delivery.item.size).toBe(bytes.length);
    expect(delivery.item.envelope).toMatchObject({
      id: item,
      kind: "message",
      from: alice,
      to: [bob],
      messageId: "hello",
      outerHeader: "Subject: [...]\r\n",
    });
    delivery.yes();
    const [sent] = await party.store.items({ box: "sent", peer: bob });
    expect(sent).toMatchObject({ id: item, title: "hello", to: [bob], head: "", protection: { sealed: false } });
    expect((await party.store.openItem(sent as NonNullable<typeof sent>).toArray()).join("")).toContain(
      "\r\n\r\nhello",
    );
  });

  test("refuses a thing for nobody, and leaves nothing of a source that fails", async () => {
    await using folder = await temporaryFolder();
    await using party = await sender(folder.path);
    await expect(party.outbox.accept(draft("x", { to: [] }))).rejects.toMatchObject({ code: "syntax" });
    async function* broken() {
      yield randomBytes(300_000);
      throw new Error("the program went away");
    }
    await expect(party.outbox.accept({ ...draft("x"), entity: broken() })).rejects.toThrow("went away");
    expect(await readdir(join(folder.path, "content", "tmp"))).toEqual([]);
    expect(await party.store.items()).toEqual([]);
  });

  test("is refused when the disk gets nearly full while it comes, and nothing of it stays", async () => {
    await using folder = await temporaryFolder();
    await using party = await sender(folder.path);
    let left = 500_000;
    const check = (bytes: number) => {
      left -= bytes;
      return left < 0
        ? Promise.reject(failure("store-failed", { fault: "local", temporary: true }))
        : Promise.resolve();
    };
    const store = { ...party.store, inside: { ...party.store.inside, space: { check } } };
    const directory = new ToyDirectory();
    const outbox = await makeOutbox({ store, directory, seal: toySeal, endpointOf: () => new ToyEndpoint() });
    let came = 0;
    async function* entity() {
      for (; came < 5_000_000; came += 50_000) yield Buffer.alloc(50_000);
    }
    await expect(outbox.accept({ ...draft("large"), entity: entity() })).rejects.toMatchObject({
      code: "store-failed",
    });
    expect(came).toBeLessThan(1_000_000);
    expect(await readdir(join(folder.path, "content"), { recursive: true })).toEqual(["tmp"]);
  });

  test("is refused while the disk is nearly full", async () => {
    await using folder = await temporaryFolder();
    await using party = await sender(folder.path, { minFreeBytes: Number.MAX_SAFE_INTEGER });
    await expect(party.outbox.accept(draft("x"))).rejects.toMatchObject({ code: "store-failed", temporary: true });
    expect(await party.store.items()).toEqual([]);
  });
});

describe("trying again", () => {
  test("an unreachable peer is dialled once a step of the schedule, whatever waits for it", async () => {
    await using folder = await temporaryFolder();
    const time = new VirtualTime();
    await using party = await sender(folder.path, { time });
    party.endpoint.answer = (delivery) => delivery.no(unreachable());
    for (let n = 0; n < 5; n += 1) await party.outbox.accept(draft(`m${n}`));
    await party.outbox.accept(draft("file", { kind: "file" }));
    await quiet(party);
    expect(party.endpoint.deliveries).toHaveLength(1);
    const seen: number[] = [];
    for (const wait of [15_000, 60_000, 300_000, 900_000, 1_800_000, 3_600_000, 3_600_000]) {
      time.advance(wait * 0.89);
      await quiet(party);
      const before = party.endpoint.deliveries.length;
      const noted = nextEvent(party.store, receiptChange("queued"));
      time.advance(wait * 0.22);
      await noted;
      await quiet(party);
      seen.push(party.endpoint.deliveries.length - before);
    }
    expect(seen).toEqual([1, 1, 1, 1, 1, 1, 1]);
    const receipts = await party.outbox.receipts();
    expect(receipts.every(({ status }) => status.state === "queued" && status.why === "unreachable")).toBe(true);
  });

  test("everything that waits goes once the peer is reached", async () => {
    await using folder = await temporaryFolder();
    const time = new VirtualTime();
    await using party = await sender(folder.path, { time });
    for (let n = 0; n < 3; n += 1) await party.outbox.accept(draft(`m${n}`));
    await party.outbox.accept(draft("file", { kind: "file" }));
    await fail(party, await party.endpoint.delivery(0), unreachable());
    party.endpoint.answer = (delivery) => delivery.yes();
    time.advance(17_000);
    await party.endpoint.delivery(4);
    await quiet(party);
    const receipts = await party.outbox.receipts();
    expect(receipts.map(({ status }) => status.state)).toEqual(["delivered", "delivered", "delivered", "delivered"]);
    expect(receipts[0]?.attempts).toBe(2);
  });

  test("a peer that was reached begins its back-off anew, and both its lanes run at once", async () => {
    await using folder = await temporaryFolder();
    const time = new VirtualTime();
    await using party = await sender(folder.path, { time });
    for (let n = 0; n < 3; n += 1) await party.outbox.accept(draft(`m${n}`));
    await fail(party, await party.endpoint.delivery(0), unreachable());
    time.advance(17_000);
    await fail(party, await party.endpoint.delivery(1), unreachable());
    time.advance(67_000);
    await succeed(party, await party.endpoint.delivery(2));
    await party.outbox.accept(draft("file", { kind: "file" }));
    await party.endpoint.delivery(4);
    const message = party.endpoint.deliveries.slice(3).find(({ item }) => item.envelope.kind === "message");
    if (message === undefined) throw new Error("the next message was to go");
    await fail(party, message, unreachable());
    const waiting = (await party.outbox.receipts({ open: true })).filter(({ status }) => status.state === "queued");
    const [first] = waiting.map(({ status }) => (status.state === "queued" ? status.nextAttempt.getTime() : 0));
    expect((first ?? 0) - time.now().getTime()).toBeLessThan(17_000);
  });

  test("a temporary refusal puts off its row alone", async () => {
    await using folder = await temporaryFolder();
    const time = new VirtualTime();
    await using party = await sender(folder.path, { time });
    const refused = await party.outbox.accept(draft("refused", { kind: "mail" }));
    const other = await party.outbox.accept(draft("other", { kind: "mail" }));
    const body = await fail(party, await party.endpoint.delivery(0), failure("quota-exceeded", { temporary: true }));
    expect(body).toMatchObject({ why: "temporary-refusal", detail: "quota-exceeded", attempts: 1 });
    await succeed(party, await party.endpoint.delivery(1));
    expect((await stateOf(party, other))?.state).toBe("delivered");
    expect(await stateOf(party, refused)).toMatchObject({ state: "queued", why: "temporary-refusal" });
    time.advance(17_000);
    const again = await party.endpoint.delivery(2);
    expect(again.item.envelope.id).toBe(refused);
  });

  test("a failure for good is told with its reason and not tried again", async () => {
    await using folder = await temporaryFolder();
    const time = new VirtualTime();
    await using party = await sender(folder.path, { time });
    const item = await party.outbox.accept(draft("x"));
    await fail(party, await party.endpoint.delivery(0), failure("limit-exceeded"), "failed");
    expect(await stateOf(party, item)).toEqual({ state: "failed", reason: "too-big", detail: "limit-exceeded" });
    expect(await party.outbox.settled(item, AbortSignal.timeout(1_000))).toBe("failed");
    time.advance(DAY);
    await quiet(party);
    expect(party.endpoint.deliveries).toHaveLength(1);
  });

  test("a recipient that the directory does not know fails at once", async () => {
    await using folder = await temporaryFolder();
    await using party = await sender(folder.path, { people: [alice] });
    const noted = nextEvent(party.store, receiptChange("failed"));
    const item = await party.outbox.accept(draft("x"));
    await noted;
    expect(await stateOf(party, item)).toMatchObject({ state: "failed", reason: "unknown" });
    expect(party.endpoint.deliveries).toHaveLength(0);
  });

  test("an attempt without progress is given up after 10 s, and one that goes on is not", async () => {
    await using folder = await temporaryFolder();
    const time = new VirtualTime();
    await using party = await sender(folder.path, { time });
    await party.outbox.accept(draft("x"));
    const slow = await party.endpoint.delivery(0);
    for (let sent = 0; sent < 5; sent += 1) {
      time.advance(9_000);
      slow.item.progress(sent);
    }
    expect(slow.signal.aborted).toBe(false);
    const noted = nextEvent(party.store, receiptChange("queued"));
    time.advance(10_001);
    expect(slow.signal.aborted).toBe(true);
    expect((await noted).body).toMatchObject({ why: "unreachable" });
  });

  test("an endpoint that never ends does not block its lane", async () => {
    await using folder = await temporaryFolder();
    const time = new VirtualTime();
    const party = await sender(folder.path, { time });
    party.endpoint.deliver = () => new Promise(() => undefined);
    await party.outbox.accept(draft("x"));
    await quiet(party);
    time.advance(10_001);
    const noted = nextEvent(party.store, receiptChange("queued"));
    time.advance(5_001);
    await noted;
    await party[Symbol.asyncDispose]();
  });
});

describe("order and lanes", () => {
  test("messages of one conversation keep their order while the first one waits", async () => {
    await using folder = await temporaryFolder();
    const time = new VirtualTime();
    await using party = await sender(folder.path, { time });
    await party.outbox.accept(draft("first"));
    await party.outbox.accept(draft("second"));
    const mail = await party.outbox.accept(draft("mail", { kind: "mail" }));
    await fail(party, await party.endpoint.delivery(0), failure("busy", { temporary: true }));
    const next = await party.endpoint.delivery(1);
    expect(next.item.envelope.id).toBe(mail);
    await succeed(party, next);
    await quiet(party);
    expect(party.endpoint.deliveries).toHaveLength(2);
    time.advance(17_000);
    await succeed(party, await party.endpoint.delivery(2));
    await succeed(party, await party.endpoint.delivery(3));
    const titles = party.endpoint.deliveries.map(({ item }) => item.envelope.title);
    expect(titles).toEqual(["first", "mail", "first", "second"]);
  });

  test("a held message does not keep the next one waiting", async () => {
    await using folder = await temporaryFolder();
    await using party = await sender(folder.path);
    const first = await party.outbox.accept(draft("first"));
    await party.outbox.accept(draft("second"));
    await party.endpoint.delivery(0);
    await party.outbox.hold(first);
    expect((await party.endpoint.delivery(1)).item.envelope.title).toBe("second");
  });

  test("a message passes a file that is being sent to the same peer once the peer has been reached", async () => {
    await using folder = await temporaryFolder();
    await using party = await sender(folder.path);
    await party.outbox.accept(draft("file", { kind: "file" }));
    const file = await party.endpoint.delivery(0);
    await party.outbox.accept(draft("hello"));
    await quiet(party);
    expect(party.endpoint.deliveries).toHaveLength(1); // one dial at a time
    file.item.progress(0);
    const message = await party.endpoint.delivery(1);
    await succeed(party, message);
    expect(file.signal.aborted).toBe(false);
  });

  test("a dead peer keeps nobody else waiting", async () => {
    await using folder = await temporaryFolder();
    await using party = await sender(folder.path);
    await party.outbox.accept(draft("to bob", { to: [bob] }));
    await fail(party, await party.endpoint.delivery(0), unreachable());
    await party.outbox.accept(draft("to carol", { to: [carol] }));
    expect((await party.endpoint.delivery(1)).to).toBe(carol);
  });
});

describe("waking", () => {
  test("tries at once and leaves the back-off as it is", async () => {
    await using folder = await temporaryFolder();
    const time = new VirtualTime();
    await using party = await sender(folder.path, { time });
    const item = await party.outbox.accept(draft("x"));
    await fail(party, await party.endpoint.delivery(0), unreachable());
    time.advance(17_000);
    await fail(party, await party.endpoint.delivery(1), unreachable());
    const due = await stateOf(party, item);
    time.advance(20_000);
    party.outbox.wake(bob);
    await fail(party, await party.endpoint.delivery(2), unreachable());
    expect(await stateOf(party, item)).toEqual(due);
    time.advance(47_000);
    await succeed(party, await party.endpoint.delivery(3));
  });

  test("counts once in 15 seconds, and none is lost", async () => {
    await using folder = await temporaryFolder();
    const time = new VirtualTime();
    await using party = await sender(folder.path, { time, schedule: [0, 3600] });
    await party.outbox.accept(draft("x"));
    await fail(party, await party.endpoint.delivery(0), unreachable());
    party.outbox.wake(bob);
    await fail(party, await party.endpoint.delivery(1), unreachable());
    time.advance(14_000);
    for (let n = 0; n < 50; n += 1) party.outbox.wake(bob);
    await quiet(party);
    expect(party.endpoint.deliveries).toHaveLength(2);
    time.advance(1_000);
    await fail(party, await party.endpoint.delivery(2), unreachable());
    time.advance(60_000);
    await quiet(party);
    expect(party.endpoint.deliveries).toHaveLength(3);
  });
});

describe("a peer who has moved", () => {
  test("has begun anew what has sent him nothing yet, at once and without counting it; not what is well on its way", async () => {
    await using folder = await temporaryFolder();
    const time = new VirtualTime();
    await using party = await sender(folder.path, { time });
    const file = await party.outbox.accept(draft("file", { kind: "file" }));
    const upload = await party.endpoint.delivery(0);
    upload.item.progress(100);
    const message = await party.outbox.accept(draft("message"));
    const dialling = await party.endpoint.delivery(1);
    party.outbox.moved(bob);
    expect([dialling.signal.aborted, upload.signal.aborted]).toEqual([true, false]);
    const again = await party.endpoint.delivery(2);
    expect(again.item.envelope.id).toBe(message);
    expect((await party.outbox.receipts({ item: message }))[0]?.attempts).toBe(0);
    await succeed(party, again);
    await succeed(party, upload);
    expect(await stateOf(party, file)).toMatchObject({ state: "delivered" });
  });

  test("again and again is followed every two seconds", async () => {
    await using folder = await temporaryFolder();
    const time = new VirtualTime();
    await using party = await sender(folder.path, { time });
    await party.outbox.accept(draft("x"));
    await party.endpoint.delivery(0);
    party.outbox.moved(bob);
    const second = await party.endpoint.delivery(1);
    for (let n = 0; n < 50; n += 1) party.outbox.moved(bob);
    await quiet(party);
    expect(second.signal.aborted).toBe(false);
    time.advance(2_000);
    await party.endpoint.delivery(2);
    expect(second.signal.aborted).toBe(true);
    time.advance(60_000);
    await quiet(party);
    expect(party.endpoint.deliveries.length).toBeLessThanOrEqual(4);
  });
});

describe("the directory", () => {
  test("that is away costs no attempt, and what waits goes on by itself when it is back", async () => {
    await using folder = await temporaryFolder();
    const time = new VirtualTime();
    await using party = await sender(folder.path, { time });
    party.sixid.failure = failure("directory-unavailable", { fault: "service", temporary: true });
    const noted = nextEvent(party.store, receiptChange("queued"));
    const item = await party.outbox.accept(draft("x"));
    await noted;
    for (let n = 0; n < 20; n += 1) {
      time.advance(30_000);
      await quiet(party);
    }
    expect(await stateOf(party, item)).toMatchObject({ state: "queued", why: "directory-unavailable" });
    expect((await party.outbox.receipts({ item }))[0]?.attempts).toBe(0);
    expect(party.sixid.lookups.length).toBeGreaterThan(10);
    expect(party.sixid.lookups.length).toBeLessThan(30);
    party.sixid.failure = undefined;
    time.advance(33_000);
    await succeed(party, await party.endpoint.delivery(0));
  });

  test("is asked by one of all who wait for it, and its return wakes them all", async () => {
    await using folder = await temporaryFolder();
    const time = new VirtualTime();
    const people = Array.from({ length: 10 }, (_, n) => `p${n}@b.test` as typeof bob);
    await using party = await sender(folder.path, { time, people });
    party.sixid.failure = failure("directory-unavailable", { fault: "service", temporary: true });
    await party.outbox.accept(draft("x", { to: people }));
    await quiet(party);
    const before = party.sixid.lookups.length;
    time.advance(2_300);
    await quiet(party);
    expect(party.sixid.lookups.length - before).toBe(1);
    party.sixid.failure = undefined;
    party.outbox.directoryBack();
    await party.endpoint.delivery(9);
  });

  test("that shows a forged record holds up that peer alone, with an event", async () => {
    await using folder = await temporaryFolder();
    await using party = await sender(folder.path, { time: new VirtualTime() });
    party.sixid.failure = failure("record-rollback", { fault: "service" });
    const told = nextEvent(party.store, (body) => body.type === "record.rejected");
    const item = await party.outbox.accept(draft("x"));
    expect((await told).body).toMatchObject({ identity: bob, code: "record-rollback" });
    await quiet(party);
    expect(await stateOf(party, item)).toMatchObject({ state: "queued", why: "directory-unavailable" });
    party.sixid.failure = undefined;
    await party.outbox.accept(draft("y", { to: [carol] }));
    expect((await party.endpoint.delivery(0)).to).toBe(carol);
  });

  test("is asked anew after a failure", async () => {
    await using folder = await temporaryFolder();
    const time = new VirtualTime();
    await using party = await sender(folder.path, { time });
    await party.outbox.accept(draft("x"));
    await fail(party, await party.endpoint.delivery(0), unreachable());
    time.advance(17_000);
    await party.endpoint.delivery(1);
    expect(party.sixid.lookups.map(({ fresh }) => fresh)).toEqual([false, true, true]);
  });

  test("is asked at once when nobody answers where a cached record says, and a moved peer is found in the same attempt", async () => {
    await using folder = await temporaryFolder();
    await using party = await sender(folder.path);
    const at = (port: number) => {
      const certificate = toyCertificate(bob);
      const addresses = [{ host: "::1", port, kind: "direct" as const, priority: 10 }];
      return { ...record(bob), devices: [{ fingerprint: certificate.fingerprint, label: "", certificate, addresses }] };
    };
    party.sixid.records.set(bob, at(1));
    const item = await party.outbox.accept(draft("x"));
    const first = await party.endpoint.delivery(0);
    party.sixid.records.set(bob, at(2));
    first.no(unreachable());
    await succeed(party, await party.endpoint.delivery(1));
    expect((await party.outbox.receipts({ item }))[0]).toMatchObject({ attempts: 1, status: { state: "delivered" } });
    expect(party.sixid.lookups.map(({ fresh }) => fresh)).toEqual([false, true]);
  });
});

describe("what waits for somebody", () => {
  test("all that is for a peer who did not admit us is held, and goes when he connects", async () => {
    await using folder = await temporaryFolder();
    await using party = await sender(folder.path);
    const first = await party.outbox.accept(draft("first"));
    const second = await party.outbox.accept(draft("second", { kind: "mail" }));
    await fail(party, await party.endpoint.delivery(0), failure("refused-by-peer"), "held");
    expect(await party.outbox.settled(second, AbortSignal.timeout(5_000))).toBe("held");
    expect(await stateOf(party, first)).toEqual({ state: "held", reason: "not-admitted" });
    expect(party.endpoint.deliveries).toHaveLength(1);
    party.endpoint.answer = (delivery) => delivery.yes();
    party.outbox.wake(bob);
    expect(await within(party.outbox.settled(second, AbortSignal.timeout(5_000)), "second")).toBe("delivered");
    expect(await party.outbox.settled(first, AbortSignal.timeout(5_000))).toBe("delivered");
  });

  test("a wrong person in the certificate and changed keys hold until the owner agrees, whoever connects", async () => {
    await using folder = await temporaryFolder();
    await using party = await sender(folder.path);
    party.sixid.records.set(bob, record(bob, { trust: "changed" }));
    const held = nextEvent(party.store, receiptChange("held"));
    const item = await party.outbox.accept(draft("x"));
    expect((await held).body).toMatchObject({ reason: "key-changed" });
    party.outbox.wake(bob);
    await quiet(party);
    expect(await stateOf(party, item)).toEqual({ state: "held", reason: "key-changed" });
    party.sixid.records.set(bob, record(bob));
    await party.outbox.release(bob);
    await fail(party, await party.endpoint.delivery(0), failure("identity-mismatch"), "held");
    expect(await stateOf(party, item)).toEqual({ state: "held", reason: "identity-mismatch" });
    await party.outbox.release(item);
    await succeed(party, await party.endpoint.delivery(1));
  });

  test("the owner holds, retries and cancels one recipient's row", async () => {
    await using folder = await temporaryFolder();
    const time = new VirtualTime();
    await using party = await sender(folder.path, { time });
    party.endpoint.answer = (delivery) => delivery.no(unreachable());
    const item = await party.outbox.accept(draft("x", { to: [bob, carol] }));
    await party.endpoint.delivery(1);
    await quiet(party);
    await party.outbox.hold(item, bob);
    await party.outbox.retry(item, carol);
    await party.endpoint.delivery(2);
    await quiet(party);
    expect(party.endpoint.deliveries.map(({ to }) => to).slice(2)).toEqual([carol]);
    await party.outbox.cancel(item, carol);
    const states = new Map((await party.outbox.receipts({ item })).map(({ to, status }) => [to, status]));
    expect(states.get(bob)).toEqual({ state: "held", reason: "owner" });
    expect(states.get(carol)).toEqual({ state: "failed", reason: "cancelled", detail: "" });
    await expect(party.outbox.cancel("0".repeat(26) as ItemId)).rejects.toMatchObject({ code: "not-found" });
  });

  test("a cancel ends the attempt; the peer's yes wins if it came first", async () => {
    await using folder = await temporaryFolder();
    await using party = await sender(folder.path);
    const cancelled = await party.outbox.accept(draft("cancelled", { to: [bob] }));
    const first = await party.endpoint.delivery(0);
    await party.outbox.cancel(cancelled);
    expect(first.signal.aborted).toBe(true);
    expect(await stateOf(party, cancelled)).toMatchObject({ state: "failed", reason: "cancelled" });
    const item = await party.outbox.accept(draft("y", { to: [carol] }));
    const second = await party.endpoint.delivery(1);
    second.yes();
    await party.outbox.cancel(item);
    expect((await stateOf(party, item))?.state).toBe("delivered");
  });
});

describe("expiry", () => {
  test("fails what waited too long, held or queued", async () => {
    await using folder = await temporaryFolder();
    const time = new VirtualTime();
    await using party = await sender(folder.path, { time });
    party.endpoint.answer = (delivery) => delivery.no(unreachable());
    const queued = await party.outbox.accept(draft("queued"));
    const held = await party.outbox.accept(draft("held", { to: [carol] }));
    await quiet(party);
    await party.outbox.hold(held);
    time.advance(4.9 * DAY);
    await quiet(party);
    expect((await stateOf(party, queued))?.state).toBe("queued");
    const expired = nextEvent(party.store, receiptChange("failed"));
    time.advance(0.2 * DAY);
    await expired;
    await quiet(party);
    expect(await stateOf(party, queued)).toMatchObject({ state: "failed", reason: "expired" });
    expect(await stateOf(party, held)).toMatchObject({ state: "failed", reason: "expired" });
  });

  test("waits a minute after the wall clock was set forward, and a clock set back strands nothing", async () => {
    await using folder = await temporaryFolder();
    const time = new VirtualTime();
    await using party = await sender(folder.path, { time });
    const item = await party.outbox.accept(draft("x", { kind: "mail" }));
    await fail(party, await party.endpoint.delivery(0), failure("busy", { temporary: true }));
    time.stepWall(-2 * DAY);
    await party.outbox.accept(draft("y", { kind: "mail", to: [bob] }));
    await succeed(party, await party.endpoint.delivery(1));
    await succeed(party, await party.endpoint.delivery(2));
    expect((await stateOf(party, item))?.state).toBe("delivered");
    const late = await party.outbox.accept(draft("late", { to: [carol] }));
    party.endpoint.answer = (delivery) => delivery.no(unreachable());
    await fail(party, await party.endpoint.delivery(3), unreachable());
    time.stepWall(6 * DAY);
    time.advance(16_000);
    await quiet(party);
    // By chance another attempt began, or not: it is not given up.
    await expect.poll(async () => (await stateOf(party, late))?.state).toBe("queued");
    const expired = nextEvent(party.store, receiptChange("failed"));
    time.advance(90_000);
    await expired;
  });
});

describe("sealed bytes", () => {
  const large = () => ({
    ...draft("large", { kind: "file" }),
    entity: Buffer.concat([Buffer.from("A: b\r\n\r\n"), randomBytes(200_000)]),
  });

  test("are the same in the next attempt, also after a restart, and gone when it is delivered", async () => {
    await using folder = await temporaryFolder();
    const time = new VirtualTime();
    let transfer = "";
    let bytes: Buffer;
    {
      await using party = await sender(folder.path, { time });
      await party.outbox.accept(large());
      const first = await party.endpoint.delivery(0);
      transfer = first.item.transfer;
      bytes = await first.bytes();
      await fail(party, first, unreachable());
    }
    await using party = await sender(folder.path, { time });
    const second = await party.endpoint.delivery(0);
    expect(second.item.transfer).toBe(transfer);
    expect((await second.bytes()).equals(bytes)).toBe(true);
    const tail = Buffer.concat((await second.item.open(150_000).toArray()) as Buffer[]);
    expect(tail.equals(bytes.subarray(150_000))).toBe(true);
    await succeed(party, second);
    await quiet(party);
    // Removed behind the transaction that notes the delivery.
    await expect.poll(() => readdir(join(folder.path, "attempt"))).toEqual([]);
  });

  test("are made anew for the recipient's new certificate", async () => {
    await using folder = await temporaryFolder();
    const time = new VirtualTime();
    await using party = await sender(folder.path, { time });
    await party.outbox.accept(large());
    const first = await party.endpoint.delivery(0);
    await fail(party, first, unreachable());
    const renewed = toyCertificate(bob, 2);
    party.sixid.records.set(bob, record(bob, { encryption: [renewed, toyCertificate(bob)] }));
    time.advance(17_000);
    const second = await party.endpoint.delivery(1);
    expect(second.item.transfer).not.toBe(first.item.transfer);
    expect((await second.bytes()).toString("latin1")).toContain(renewed.sha256);
    expect(await readdir(join(folder.path, "attempt"))).toHaveLength(1);
  });

  test("of a cancelled row are gone", async () => {
    await using folder = await temporaryFolder();
    await using party = await sender(folder.path);
    const item = await party.outbox.accept(large());
    await party.endpoint.delivery(0);
    await party.outbox.cancel(item);
    expect(await readdir(join(folder.path, "attempt"))).toEqual([]);
  });

  test("a recipient without a certificate to seal to waits; nothing leaves unsealed", async () => {
    await using folder = await temporaryFolder();
    await using party = await sender(folder.path, { time: new VirtualTime() });
    party.sixid.records.set(bob, record(bob, { encryption: [] }));
    const noted = nextEvent(party.store, receiptChange("queued"));
    await party.outbox.accept(draft("x"));
    expect((await noted).body).toMatchObject({ why: "temporary-refusal", detail: "recipient-unusable" });
    expect(party.endpoint.deliveries).toHaveLength(0);
  });
});

test("stopping ends what is under way without counting it, and a restart goes on", async () => {
  await using folder = await temporaryFolder();
  const time = new VirtualTime();
  const first = await sender(folder.path, { time });
  const item = await first.outbox.accept(draft("x", { kind: "file" }));
  const delivery = await first.endpoint.delivery(0);
  await first.outbox.stop();
  expect(delivery.signal.aborted).toBe(true);
  await first.store.close();
  await using second = await sender(folder.path, { time });
  await succeed(second, await second.endpoint.delivery(0));
  expect((await second.outbox.receipts({ item }))[0]).toMatchObject({ attempts: 1, status: { state: "delivered" } });
});

test("receipts of a short wait are told when the signal ends it", async () => {
  await using folder = await temporaryFolder();
  await using party = await sender(folder.path);
  const item = await party.outbox.accept(draft("x"));
  await party.endpoint.delivery(0);
  expect(await party.outbox.settled(item, AbortSignal.timeout(20))).toBe("open");
});
