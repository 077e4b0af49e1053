import { randomBytes } from "node:crypto";
import { afterAll, beforeAll, describe, expect, test } from "vitest";
import type { HttpsResponse } from "../../src/peertls-core/https-client.ts";
import { parseIdentity } from "../../src/pki/identity.ts";
import { silentLog } from "../../src/pki/log.ts";
import { makeIdentity, makePresence } from "../../src/sixid/announce.ts";
import { DirectoryClient } from "../../src/sixid/client.ts";
import type { PersonAlias } from "../../src/sixid/lookup-key.ts";
import { OwnSettings } from "../../src/sixid/own-settings.ts";
import type { RecordEvent } from "../../src/sixid/pins.ts";
import type { RecordReply } from "../../src/sixid/records.ts";
import { watch } from "../../src/sixid/watch.ts";
import {
  hashOf,
  httpTo,
  MemoryPins,
  ownOf,
  startDirectory,
  startLiar,
  type TestDirectory,
} from "../support/directory.ts";
import { makeTestDomain, type TestCredentials, type TestPerson } from "../support/pki.ts";

const alpha = makeTestDomain({ domain: "alpha.test" });
const beta = makeTestDomain({ domain: "beta.test" });
const signal = () => AbortSignal.timeout(20_000);
const at = { host: "2001:db8::5", port: 4605, kind: "direct", priority: 1 } as const;
let alphas: TestDirectory;
let betas: TestDirectory;
/** Added to the alpha server's clock. */
let ahead = 0;
beforeAll(async () => {
  betas = await startDirectory(beta, { others: [{ domain: alpha, at: () => alphas.address }] });
  const others = [{ domain: beta, at: () => betas.address }];
  alphas = await startDirectory(alpha, { others, clock: () => new Date(Date.now() + ahead) });
});
afterAll(async () => {
  await alphas[Symbol.asyncDispose]();
  await betas[Symbol.asyncDispose]();
});

let people = 0;

/** A new person with account, client and settings; `as` another device of one who is there. */
async function person(of = alpha, as?: { person: TestPerson; uuid: string }) {
  people += 1;
  const directory = of === alpha ? alphas : betas;
  const identity = as?.person.identity ?? `p${people}@${of.domain}`;
  const made = of.person({ identity, encryptionKey: "ec" });
  const uuid = as?.uuid ?? (await directory.account(made.identity));
  const http = httpTo(of, directory.address, made.auth);
  const events: RecordEvent[] = [];
  const client = new DirectoryClient({
    ...{ http, uuid, signer: () => made.auth, pins: new MemoryPins(), clock: () => new Date(), log: silentLog },
    anchorsFor: (domain) => (domain === "alpha.test" ? [alpha.anchor] : [beta.anchor]),
    ...{ onEvent: (event: RecordEvent) => void events.push(event), onDomain: () => undefined },
  });
  return { person: made, uuid, own: ownOf(made, uuid), http, client, events, settings: new OwnSettings(http) };
}

async function published(of = alpha) {
  const made = await person(of);
  await made.client.publishIdentity(made.own, signal());
  await made.client.publishAddresses([at], signal());
  return made;
}
type Somebody = Awaited<ReturnType<typeof person>>;

async function request(
  as: Somebody | undefined,
  method: string,
  path: string,
  body?: object | string,
): Promise<HttpsResponse> {
  const http = as?.http ?? httpTo(alpha, alphas.address);
  const headers = { "content-type": typeof body === "string" ? "application/jose" : "application/json" };
  const text = typeof body === "object" ? JSON.stringify(body) : body;
  return http.request({ method, path, ...(text === undefined ? {} : { headers, body: text }) }, signal());
}
const look = (as: Somebody | undefined, key: string) => request(as, "GET", `/v1/records/${encodeURIComponent(key)}`);
const replyOf = ({ body }: HttpsResponse) => JSON.parse(body.toString("utf8")) as RecordReply;

describe("presence", () => {
  test("is signed by a device, seen by contacts alone unless its owner says otherwise, and apart from addresses", async () => {
    const [bob, friend, other] = [await published(beta), await published(), await published()];
    await bob.settings.setContacts([friend.person.identity], signal());
    await bob.client.publishPresence({ state: "busy", note: "until \u{1F553}" }, signal());
    const seen = async (by: Somebody) => {
      const { devices } = await by.client.lookup(bob.person.identity, { fresh: true }, signal());
      return { presence: devices[0]?.presence, addresses: devices[0]?.addresses };
    };
    expect(await seen(friend)).toEqual({ presence: { state: "busy", note: "until \u{1F553}" }, addresses: [at] });
    expect(await seen(other)).toEqual({ presence: undefined, addresses: [at] });
    const visibility = { certificates: "public", addresses: "contacts", presence: "authenticated" } as const;
    await bob.settings.setVisibility(visibility, signal());
    expect(await bob.settings.visibility(signal())).toEqual(visibility);
    expect(await seen(friend)).toEqual({ presence: { state: "busy", note: "until \u{1F553}" }, addresses: [at] });
    expect(await seen(other)).toEqual({ presence: { state: "busy", note: "until \u{1F553}" }, addresses: [] });
    expect(await bob.settings.contacts(signal())).toEqual([friend.person.identity]);
  });

  test.each<[string, number, (own: Somebody, other: Somebody, now: number) => Promise<string> | string]>([
    ["signed by another person's device", 422, ({ uuid }, { person }, now) => presence(uuid, now, person.auth)],
    ["of another person, as he signed it", 422, (_own, { uuid, person }, now) => presence(uuid, now, person.auth)],
    ["under another's uuid", 422, ({ person }, { uuid }, now) => presence(uuid, now, person.auth)],
    ["from the future", 422, ({ uuid, person }, _other, now) => presence(uuid, now + 400_000, person.auth)],
    ["replayed", 409, ({ uuid, person }, _other, now) => presence(uuid, now - 1_000, person.auth)],
    ["nonsense", 422, () => "nonsense"],
  ])("%s is refused", async (_name, status, forge) => {
    const [own, other] = [await published(), await published()];
    await own.client.publishPresence({ state: "away" }, signal());
    const path = `/v1/devices/${own.person.auth.certificate.fingerprint}/presence`;
    const response = await request(own, "PUT", path, await forge(own, other, Date.now()));
    expect(response.status).toBe(status);
    const told = await own.client.lookup(own.person.identity, { fresh: true }, signal());
    expect(told.devices[0]?.presence).toEqual({ state: "away" });
  });
  const presence = (uuid: string, seq: number, by: TestCredentials) =>
    makePresence(uuid, { state: "online" }, seq, by, new Date());
});

test("a stranger who watches does not hear that somebody's presence changed; a contact does", async () => {
  const [bob, friend, stranger] = [await published(), await published(), await published()];
  await bob.settings.setContacts([friend.person.identity], signal());
  const ends = new AbortController();
  const told = { friend: 0, stranger: 0 };
  const follow = async (who: Somebody, count: keyof typeof told) => {
    const know = new Map([[bob.person.identity, who.client.known(bob.person.identity)]]);
    for await (const { type } of watch(who.http, know, ends.signal)) if (type === "record") told[count] += 1;
  };
  const streams = [follow(friend, "friend"), follow(stranger, "stranger")].map((one) => one.catch(() => undefined));
  await expect.poll(() => told).toEqual({ friend: 1, stranger: 1 });
  await bob.client.publishPresence({ state: "away" }, signal());
  await expect.poll(() => told.friend).toBe(2);
  await bob.client.publishAddresses([{ ...at, port: 4606 }], signal());
  await expect.poll(() => told).toEqual({ friend: 3, stranger: 2 });
  ends.abort();
  await Promise.all(streams);
});

test("a directory that tells older presence than before is noticed", async () => {
  const [alice, bob] = [await published(), await published()];
  await bob.settings.setContacts([alice.person.identity], signal());
  const record = async () => replyOf(await look(alice, bob.person.identity));
  await bob.client.publishPresence({ state: "online" }, signal());
  const old = await record();
  await bob.client.publishPresence({ state: "away" }, signal());
  let told = await record();
  await using liar = await startLiar(alpha, () => ({ body: told }));
  const http = httpTo(alpha, liar.address, alice.person.auth);
  const rest = { pins: new MemoryPins(), clock: () => new Date(), log: silentLog, onEvent: () => undefined };
  const anchored = { anchorsFor: () => [alpha.anchor], onDomain: () => undefined, signer: () => alice.person.auth };
  const client = new DirectoryClient({ http, uuid: alice.uuid, ...rest, ...anchored });
  const lookup = () => client.lookup(bob.person.identity, { fresh: true }, signal());
  expect((await lookup()).devices[0]?.presence).toEqual({ state: "away" });
  told = old;
  await expect(lookup()).rejects.toMatchObject({ code: "record-rollback" });
  http.close();
});

describe("what is not to be seen", () => {
  test("is answered as what does not exist, to the byte", async () => {
    const bob = await published();
    const answers = [await look(undefined, bob.person.identity), await look(undefined, "nobody@alpha.test")];
    answers.push(
      await look(undefined, "%"),
      await look(undefined, "+4930123456"),
      await look(undefined, "a@beta.test"),
    );
    for (const { status, headers, body } of answers) {
      const { date: _date, ...rest } = headers;
      const { date: _other, ...first } = answers[0]?.headers ?? {};
      expect([status, rest, body.toString("utf8")]).toEqual([404, first, answers[0]?.body.toString("utf8")]);
    }
    const visibility = { certificates: "public", addresses: "public", presence: "contacts" } as const;
    await bob.settings.setVisibility(visibility, signal());
    const { devices, visibleTo } = replyOf(await look(undefined, bob.person.identity));
    expect(Object.values(devices)[0]).toMatchObject({ addresses: expect.any(String) as string });
    expect(visibleTo).toBe("caller");
  });

  test("of one who is blocked there is nothing, also by uuid, by fingerprint, and in the chain", async () => {
    const [bob, alice] = [await published(), await published()];
    const keys = [bob.person.identity, bob.uuid, bob.person.auth.certificate.fingerprint];
    for (const key of keys) expect((await look(alice, key)).status).toBe(200);
    expect((await request(alice, "GET", `/v1/identity/${bob.uuid}/chain`)).status).toBe(200);
    await alphas.store.setUser(bob.uuid, { status: "blocked" }, 1);
    for (const key of keys) expect((await look(alice, key)).status).toBe(404);
    expect((await request(alice, "GET", `/v1/identity/${bob.uuid}/chain`)).status).toBe(404);
    expect((await request(bob, "GET", "/v1/policy")).status).toBe(403);
  });
});

describe("enumeration", () => {
  test("costs rising waits; those who were found before are told on; nobody else waits", async () => {
    const [thief, friend, other] = [await published(), await published(), await published()];
    expect((await look(thief, friend.person.identity)).status).toBe(200);
    const waits: string[] = [];
    for (let n = 0; n < 12; n += 1) {
      const { status, headers } = await look(thief, `guess${n}@alpha.test`);
      waits.push(`${status} ${headers["retry-after"] ?? "-"}`);
    }
    expect(waits.slice(0, 11)).toEqual([...Array<string>(10).fill("404 -"), "404 60"]);
    expect(waits[11]).toMatch(/^429 (59|60)$/);
    // Whoever is there or not: while he waits, the answer is one.
    const [there, not] = [await look(thief, other.person.identity), await look(thief, "guess99@alpha.test")];
    expect([there.status, there.body.toString()]).toEqual([429, not.body.toString()]);
    expect((await look(thief, friend.person.identity)).status).toBe(200);
    expect((await look(friend, other.person.identity)).status).toBe(200);
  });

  test("by somebody anonymous is over after ten a minute, for the whole /64", async () => {
    ahead += 120_000; // another minute than the tests before
    const answers: number[] = [];
    for (let n = 0; n < 12; n += 1) answers.push((await look(undefined, `anon${n}@alpha.test`)).status);
    expect(answers.slice(-1)).toEqual([429]);
    expect(answers.filter((status) => status === 404).length).toBeLessThanOrEqual(10);
  });

  test("by watching is none: whom somebody may not look up he is not told of", async () => {
    const [thief, bob] = [await published(), await published()];
    for (let n = 0; n < 11; n += 1) await look(thief, `watch${n}@alpha.test`);
    const ends = new AbortController();
    const know = {
      [bob.person.identity]: { identity: 0, devices: {} },
      [thief.person.identity]: { identity: 0, devices: {} },
    };
    const headers = { "content-type": "application/json" };
    let told = "";
    const stream = thief.http.stream(
      { method: "POST", path: "/v1/watch", headers, body: JSON.stringify({ know }) },
      5_000,
      ends.signal,
    );
    for await (const piece of stream) {
      told += piece.toString("utf8");
      if (told.includes("event: record")) break;
    }
    ends.abort();
    expect(told).toContain(thief.person.identity);
    expect(told).not.toContain(bob.person.identity);
  });
});

describe("several keys in one question", () => {
  test("each is answered for itself, across domains", async () => {
    const [alice, bob] = [await published(), await published(beta)];
    const keys = [bob.person.identity, "nobody@alpha.test", alice.uuid, "x@gamma.test", "%"];
    const { status, body } = await request(alice, "POST", "/v1/records", { keys });
    const { records } = JSON.parse(body.toString()) as { records: { key: string; record?: object; code?: string }[] };
    expect(status).toBe(200);
    expect(records.map(({ key }) => key)).toEqual(keys);
    expect(records.map(({ record, code }) => code ?? record !== undefined)).toEqual([true, false, true, false, false]);
  });

  test.each<[string, object]>([
    ["101", { keys: Array.from({ length: 101 }, (_, n) => `k${n}`) }],
    ["no list", { keys: "a" }],
    ["something else, too", { keys: [], more: 1 }],
  ])("%s: refused", async (_name, body) =>
    expect((await request(await person(), "POST", "/v1/records", body)).status).toBe(400),
  );
});

describe("an alias", () => {
  const salt = () => randomBytes(16).toString("base64url");
  const telling = async (who: Somebody, aliases: readonly PersonAlias[]) => {
    await who.client.publishIdentity({ ...who.own, aliases }, signal());
    await who.settings.setAliases(aliases, signal());
  };

  test("that an administrator gave finds its owner, by e-mail and by number; the record itself does not show it", async () => {
    const [alice, bob] = [await published(), await published()];
    const [email, phone] = [`sales${people}@example.org`, `+4930${100_000 + people}`];
    for (const who of [alice, bob]) await telling(who, []);
    await alphas.store.grantAlias(bob.uuid, "email", email);
    await alphas.store.grantAlias(bob.uuid, "phone", phone);
    await telling(bob, [
      { kind: "email", value: email, salt: salt() },
      { kind: "phone", value: phone, salt: salt() },
    ]);
    const found = await alice.client.find(`mailto:${email}`, signal());
    expect([found.identity, found.aliases]).toEqual([bob.person.identity, [{ kind: "email", value: email }]]);
    expect((await look(alice, bob.person.identity)).body.toString()).not.toContain(phone);
    // Numbers are for those who have one themselves.
    await expect(alice.client.find(phone, signal())).rejects.toMatchObject({ code: "unknown-recipient" });
    await alphas.store.grantAlias(alice.uuid, "phone", `${phone}1`);
    await telling(alice, [{ kind: "phone", value: `${phone}1`, salt: salt() }]);
    expect((await alice.client.find(`tel:${phone}`, signal())).identity).toBe(bob.person.identity);
    // Contacts are told all.
    await bob.settings.setContacts([alice.person.identity], signal());
    expect((await alice.client.lookup(bob.person.identity, { fresh: true }, signal())).aliases).toHaveLength(2);
  });

  test("of another domain's is found there", async () => {
    const [alice, bob] = [await published(), await published(beta)];
    const value = `info${people}@beta.test`;
    await betas.store.grantAlias(bob.uuid, "email", value);
    await telling(bob, [{ kind: "email", value, salt: salt() }]);
    expect((await alice.client.find(`mailto:${value}`, signal())).identity).toBe(bob.person.identity);
    await expect(alice.client.lookup(parseIdentity(value), {}, signal())).rejects.toMatchObject({
      code: "unknown-recipient",
    });
  });

  test("that somebody merely claims finds nobody; one that his record does not list is refused", async () => {
    const [alice, thief] = [await published(), await published()];
    await telling(thief, [{ kind: "email", value: "ceo@example.org", salt: salt() }]);
    await expect(alice.client.find("mailto:ceo@example.org", signal())).rejects.toMatchObject({
      code: "unknown-recipient",
    });
    const unlisted = thief.settings.setAliases([{ kind: "email", value: "other@example.org", salt: salt() }], signal());
    await expect(unlisted).rejects.toMatchObject({ code: "record-rejected" });
  });

  test("that a lying directory gives to somebody who does not list it is refused", async () => {
    const [alice, bob] = [await published(), await published()];
    const told = replyOf(await look(alice, bob.person.identity));
    const told2 = { ...told, aliases: [[salt(), "email", "ceo@example.org"]] };
    await using liar = await startLiar(alpha, () => ({ body: told2 }));
    const http = httpTo(alpha, liar.address, alice.person.auth);
    const rest = { pins: new MemoryPins(), clock: () => new Date(), log: silentLog, onEvent: () => undefined };
    const anchored = { anchorsFor: () => [alpha.anchor], onDomain: () => undefined, signer: () => alice.person.auth };
    const client = new DirectoryClient({ http, uuid: alice.uuid, ...rest, ...anchored });
    for (const asked of ["mailto:ceo@example.org", bob.uuid, alice.uuid])
      await expect(client.find(asked, signal())).rejects.toMatchObject({
        code: "record-rejected",
        details: { step: "alias" },
      });
    delete (told as { aliases?: unknown }).aliases;
    await using honest = await startLiar(alpha, () => ({ body: told }));
    const other = new DirectoryClient({
      http: httpTo(alpha, honest.address, alice.person.auth),
      uuid: alice.uuid,
      ...rest,
      ...anchored,
    });
    for (const [asked, step] of [
      ["mailto:ceo@example.org", "alias"],
      [alice.uuid, "uuid"],
      ["ab".repeat(32), "fingerprint"],
    ] as const)
      await expect(other.find(asked, signal())).rejects.toMatchObject({ details: { step } });
  });
});

test("a directory that answers a uuid with somebody of another domain, whose record is good, is not believed", async () => {
  const [alice, bob] = [await published(), await published(beta)];
  const told = replyOf(await look(alice, bob.person.identity));
  await using liar = await startLiar(alpha, () => ({ body: told }));
  const http = httpTo(alpha, liar.address, alice.person.auth);
  const rest = { pins: new MemoryPins(), clock: () => new Date(), log: silentLog, onEvent: () => undefined };
  const anchorsFor = (domain: string) => (domain === "beta.test" ? [beta.anchor] : [alpha.anchor]);
  const signer = () => alice.person.auth;
  const client = new DirectoryClient({
    http,
    uuid: alice.uuid,
    ...rest,
    anchorsFor,
    onDomain: () => undefined,
    signer,
  });
  await expect(client.find(bob.uuid, signal())).rejects.toMatchObject({ details: { step: "domain asked for" } });
  http.close();
});

describe("a chain of changes", () => {
  test.each([1, 20])(
    "%i unseen steps that lead from the pinned device to another are no replaced root, across domains",
    async (steps) => {
      const [alice, bob] = [await published(), await published(beta)];
      await alice.client.lookup(bob.person.identity, {}, signal());
      const second = await person(beta, bob);
      const both = { ...bob.own, devices: [...bob.own.devices, ...second.own.devices] };
      for (let n = 0; n < steps; n += 1) await bob.client.publishIdentity({ ...both, name: `step ${n}` }, signal());
      await second.client.publishIdentity(second.own, signal());
      const seen = await alice.client.lookup(bob.person.identity, { fresh: true }, signal());
      expect([seen.trust, seen.seq]).toEqual(["pinned", steps + 2]);
      expect(alice.events.map(({ type }) => type)).not.toContain("rootReplaced");
    },
  );

  test("a step that no listed device signed is a replaced root, however the directory orders its words", async () => {
    const [alice, bob] = [await published(), await published()];
    await alice.client.lookup(bob.person.identity, {}, signal());
    const thief = alpha.person({ identity: bob.person.identity, encryptionKey: "ec" });
    const his = ownOf(thief, bob.uuid);
    const one = (await alphas.store.record(bob.uuid))?.identity ?? "";
    const two = await makeIdentity(his, { seq: 1, hash: hashOf(one) }, thief.auth, new Date());
    const three = await makeIdentity(his, { seq: 2, hash: hashOf(two) }, thief.auth, new Date());
    for (const [previous, jws, seq] of [
      [one, two, 2],
      [two, three, 3],
    ] as const)
      await alphas.store.putIdentity(bob.uuid, { seq, hash: hashOf(jws), jws, devices: [] }, hashOf(previous));
    const seen = await alice.client.lookup(bob.person.identity, { fresh: true }, signal());
    expect(seen.trust).toBe("changed");
    expect(alice.events.map(({ type }) => type)).toContain("rootReplaced");
  });
});

describe("several devices of one person", () => {
  test("a device that is revoked is silent from then on, and cannot come back by itself", async () => {
    const bob = await published();
    const second = await person(alpha, bob);
    await bob.client.publishIdentity({ ...bob.own, devices: [...bob.own.devices, ...second.own.devices] }, signal());
    await second.client.publishAddresses([at], signal());
    const seen = async () => Object.keys(replyOf(await look(bob, bob.person.identity)).devices);
    expect(await seen()).toHaveLength(2);
    const { fingerprint } = second.person.auth.certificate;
    const thief = await published();
    expect((await request(thief, "DELETE", `/v1/devices/${fingerprint}`)).status).toBe(403);
    await bob.settings.dropDevice(fingerprint, signal());
    expect(await seen()).toEqual([bob.person.auth.certificate.fingerprint]);
    await expect(second.client.publishAddresses([at], signal())).rejects.toMatchObject({ code: "forbidden" });
    await expect(second.settings.dropDevice(bob.person.auth.certificate.fingerprint, signal())).rejects.toMatchObject({
      code: "forbidden",
    });
    const relisted = bob.client.publishIdentity(
      { ...bob.own, devices: [...bob.own.devices, ...second.own.devices] },
      signal(),
    );
    await expect(relisted).rejects.toMatchObject({ code: "record-rejected" });
  });

  test("an administrator revokes anybody's", async () => {
    const [admin, bob] = [await published(), await published()];
    await alphas.store.setUser(admin.uuid, { roles: ["admin"] }, 1);
    await admin.settings.dropDevice(bob.person.auth.certificate.fingerprint, signal());
    expect((await request(bob, "GET", "/v1/policy")).status).toBe(403);
  });
});

describe("a new root", () => {
  const held = async () => {
    const bob = await published();
    const next = await person(alpha, bob);
    await expect(next.client.publishIdentity(next.own, signal())).rejects.toMatchObject({ details: { held: true } });
    const [root] = await bob.settings.heldRoots(signal());
    expect(root?.signer).toBe(next.person.auth.certificate.fingerprint);
    const current = async () => (await alphas.store.record(bob.uuid))?.identity;
    return { bob, next, id: root?.id ?? "", jws: root?.jws, current, before: await current() };
  };

  test("waits for a day and is then in force; the old device is told meanwhile", async () => {
    const ends = new AbortController();
    const watcher = await published();
    const { bob, jws, current, before } = await held();
    expect(await current()).toBe(before);
    const stream = bob.http.stream(
      { method: "POST", path: "/v1/watch", headers: { "content-type": "application/json" }, body: '{"know":{}}' },
      5_000,
      ends.signal,
    );
    const third = await person(alpha, bob);
    const again = third.client.publishIdentity(third.own, signal());
    await expect(again).rejects.toMatchObject({ code: "forbidden" });
    let told = "";
    for await (const piece of stream) {
      told += piece.toString();
      if (told.includes("event: root")) break;
      if (told.startsWith(":"))
        await third.client.publishIdentity({ ...third.own, name: "again" }, signal()).catch(() => undefined);
    }
    ends.abort();
    ahead += 86_399_000;
    await alphas.service.own.takeDueRoots();
    expect(await current()).toBe(before);
    ahead += 2_000;
    await alphas.service.own.takeDueRoots();
    expect(await current()).toBe(jws);
    expect((await look(watcher, bob.person.identity)).status).toBe(200);
    ahead -= 86_401_000;
  });

  test("is in force at once when an old device agrees, or an administrator", async () => {
    const one = await held();
    await one.bob.settings.approveRoot(one.id, signal());
    expect(await one.current()).toBe(one.jws);
    const two = await held();
    const admin = await published();
    await alphas.store.setUser(admin.uuid, { roles: ["admin"] }, 1);
    await admin.settings.approveRoot(two.id, signal());
    expect(await two.current()).toBe(two.jws);
  });

  test("is gone when an old device refuses it or publishes anything; its own device, and others, do not decide", async () => {
    const one = await held();
    const other = await published();
    for (const who of [one.next, other])
      for (const method of ["POST", "DELETE"])
        expect((await request(who, method, `/v1/roots/${one.id}`)).status).toBe(403);
    await one.bob.settings.refuseRoot(one.id, signal());
    expect(await one.bob.settings.heldRoots(signal())).toEqual([]);
    const two = await held();
    await two.bob.client.publishIdentity({ ...two.bob.own, name: "still here" }, signal());
    ahead += 86_401_000;
    await alphas.service.own.takeDueRoots();
    ahead -= 86_401_000;
    expect(await two.current()).not.toBe(two.jws);
  });
});

describe("attacks", () => {
  test("a session token that was stolen is worth nothing after the password changed", async () => {
    const bob = await published();
    const put = (password: string) => request(bob, "PUT", "/v1/password", { password });
    await put("a good password");
    const authorization = `Basic ${Buffer.from(`${bob.person.identity}:a good password`).toString("base64")}`;
    const anonymous = httpTo(alpha, alphas.address);
    const login = await anonymous.request(
      { method: "POST", path: "/v1/session", headers: { authorization } },
      signal(),
    );
    const { token } = JSON.parse(login.body.toString()) as { token: string };
    const policy = () =>
      anonymous.request({ method: "GET", path: "/v1/policy", headers: { authorization: `Bearer ${token}` } }, signal());
    expect((await policy()).status).toBe(200);
    await put("another good password");
    expect((await policy()).status).toBe(403);
    anonymous.close();
  });

  test("passwords that are guessed from one place are no more looked at after twenty, whosever they are", async () => {
    await using server = await startDirectory(alpha);
    const http = httpTo(alpha, server.address);
    const guess = async (n: number) => {
      const headers = { authorization: `Basic ${Buffer.from(`guess${n}:secret-${n}`).toString("base64")}` };
      return (await http.request({ method: "POST", path: "/v1/session", headers }, signal())).status;
    };
    const statuses: number[] = [];
    for (let n = 0; n < 20; n += 4)
      statuses.push(...(await Promise.all([guess(n), guess(n + 1), guess(n + 2), guess(n + 3)])));
    expect([statuses, await guess(20)]).toEqual([Array<number>(20).fill(401), 429]);
    http.close();
  });

  const deep = `{"keys":${"[".repeat(30_000)}${"]".repeat(30_000)}}`;
  test.each<[string, string, string, number]>([
    ["30,000 levels", "/v1/records", deep, 400],
    ["30,000 levels", "/v1/watch", deep.replace("keys", "know"), 400],
    ["10 MB", "/v1/records", `{"keys":["${"a".repeat(10_000_000)}"]}`, 413],
    ["10 MB of depth", "/v1/recursive", "[".repeat(10_000_000), 413],
    ["a prototype", "/v1/records", '{"__proto__":{"keys":[]},"keys":[]}', 400],
    ["half a text", "/v1/records", '{"keys":["a', 400],
    ["no JSON", "/v1/records", "\u0000", 400],
  ])("JSON of %s at %s is refused, and the server goes on", async (_name, path, body, status) => {
    const bob = await published();
    const headers = { "content-type": "application/json" };
    const answer = await bob.http
      .request({ method: "POST", path, headers, body }, signal())
      .then((response) => response.status)
      .catch((error: { code?: string }) => error.code);
    // Whoever sends on after the answer may find the connection closed before he read it.
    expect([status, ...(status === 413 ? ["unreachable"] : [])]).toContain(answer);
    expect((await look(bob, bob.person.identity)).status).toBe(200);
  });

  test("an identity object nested too deep is refused as an object", async () => {
    const bob = await published();
    const part = (value: object | string) =>
      Buffer.from(typeof value === "string" ? value : JSON.stringify(value)).toString("base64url");
    const jws = [
      part({ alg: "ES256", typ: "sixid-identity", x5c: ["AA=="] }),
      part(`{"a":${"[".repeat(9_000)}1${"]".repeat(9_000)}}`),
      "AA",
    ];
    const { status, body } = await request(bob, "PUT", "/v1/identity", jws.join("."));
    expect([status, (JSON.parse(body.toString()) as { step: string }).step]).toEqual([422, "canonical"]);
  });

  test("another's settings, contacts and roots are nobody's: each route speaks of the caller", async () => {
    const [bob, thief] = [await published(), await published()];
    await bob.settings.setContacts([thief.person.identity], signal());
    expect(await thief.settings.contacts(signal())).toEqual([]);
    const foreign = httpTo(alpha, alphas.address, beta.person({ identity: "m@beta.test", encryptionKey: "ec" }).auth);
    for (const path of ["/v1/policy", "/v1/contacts", "/v1/roots"]) {
      expect((await foreign.request({ method: "GET", path }, signal())).status).toBe(403);
      expect((await request(undefined, "GET", path)).status).toBe(403);
    }
    foreign.close();
  });
});
