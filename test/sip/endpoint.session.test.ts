import { randomBytes } from "node:crypto";
import { afterEach, expect, test } from "vitest";
import { noCut } from "../../src/delivery/cut-point.ts";
import type { EndpointPort } from "../../src/delivery/endpoint.ts";
import { makeInbox } from "../../src/delivery/inbox.ts";
import type { OwnerAccess } from "../../src/delivery/owner-access.ts";
import { openStore } from "../../src/delivery/store.ts";
import { systemTime } from "../../src/delivery/time.ts";
import { parseIdentity } from "../../src/pki/identity.ts";
import { silentLog } from "../../src/pki/log.ts";
import { derToPem } from "../../src/pki/pem.ts";
import { SipEndpoint } from "../../src/sip/endpoint.ts";
import { type SipMessage, value } from "../../src/sip/grammar.ts";
import { parseAuthParameters } from "../../src/sip/headers.ts";
import { instantMessage } from "../../src/sip/instant.ts";
import { peerOf } from "../delivery/party.ts";
import { makeTestDomain } from "../support/pki.ts";
import { temporaryFolder } from "../support/tmp.ts";
import { authorization, hashed } from "./digest-client.ts";
import { type Phone, startPhone } from "./phone.ts";
import { request } from "./request.ts";

const owner = parseIdentity("alice@a.test");
const bob = parseIdentity("bob@b.test");
const server = makeTestDomain({ domain: "a.test" }).domainServer();
const tls = {
  certificatePem: derToPem(server.certificate.der, "CERTIFICATE"),
  keyPem: server.privateKey.export({ type: "pkcs8", format: "pem" }) as string,
};
const ends: (() => Promise<void>)[] = [];
afterEach(async () => {
  for (const end of ends.splice(0).reverse()) await end();
});

/** A SIP endpoint on a real store; texts come in as if a peer had brought them. */
async function start(passwords: Record<string, string>) {
  const folder = await temporaryFolder();
  const store = await openStore({
    directory: folder.path,
    time: systemTime(),
    random: randomBytes,
    log: silentLog,
    cut: noCut,
    minFreeBytes: 0,
  });
  const inbox = makeInbox({ store, open: () => Promise.reject(new Error("not here")) });
  const access: OwnerAccess = {
    owner,
    realm: "a.test",
    verify: () => undefined,
    ha1s: (algorithm) =>
      Object.entries(passwords).map(([id, password]) => ({ id, ha1: hashed(algorithm, `alice:a.test:${password}`) })),
  };
  const sip = new SipEndpoint({
    owner,
    access,
    random: randomBytes,
    local: { host: "127.0.0.1", sipPort: 0, sipsPort: 0, tls },
  });
  await sip.start({
    inbox,
    store,
    log: silentLog,
    clock: () => new Date(),
    onPeer: () => undefined,
  } as unknown as EndpointPort);
  ends.push(async () => {
    await sip.stop();
    await store.close();
    await folder[Symbol.asyncDispose]();
  });
  let n = 0;
  return {
    sip,
    arrive: async (text: string) => {
      const id = `m${(n += 1)}`;
      const { bytes, title } = instantMessage({ from: bob, to: owner, text, id, now: new Date() });
      await inbox.receivePlain(
        { kind: "message", peer: peerOf(bob), messageId: id, bytes, title },
        new AbortController().signal,
      );
    },
    register: async (password: string): Promise<Phone> => {
      const phone = await startPhone("UDP", sip.addresses?.sip ?? { host: "", port: 0 });
      ends.push(async () => phone[Symbol.dispose]());
      const make = (cseq: number, more: Record<string, string>) =>
        request({
          method: "REGISTER",
          uri: "sip:a.test",
          headers: {
            via: `SIP/2.0/UDP 127.0.0.1:${phone.port};branch=z9hG4bK${randomBytes(8).toString("hex")};rport`,
            to: "<sip:alice@a.test>",
            cseq: `${cseq} REGISTER`,
            "call-id": `${phone.port}`,
            contact: `<sip:alice@127.0.0.1:${phone.port}>`,
            ...more,
          },
        });
      const challenge = await phone.ask(make(1, {}));
      const nonce =
        parseAuthParameters(value(challenge.headers, "www-authenticate") ?? "").parameters.get("nonce") ?? "";
      const proof = authorization({
        user: "alice",
        realm: "a.test",
        password,
        method: "REGISTER",
        uri: "sip:a.test",
        nonce,
        nc: 1,
        algorithm: "SHA-256",
      });
      expect((await phone.ask(make(2, { authorization: proof }))).status).toBe(200);
      return phone;
    },
  };
}

/** The next text that is shown, which is taken; repeats of those before are answered, too. */
async function taken(phone: Phone, seen: Set<string>): Promise<string> {
  for (;;) {
    const came: SipMessage = await phone.next();
    phone.answer(came, 200);
    const id = value(came.headers, "call-id") ?? "";
    if (seen.has(id)) continue;
    seen.add(id);
    return came.body.toString();
  }
}

test("what came while nobody was there is shown at the registration, oldest first, and once", async () => {
  const node = await start({ phone: "p1" });
  for (const text of ["one", "two", "three"]) await node.arrive(text);
  const phone = await node.register("p1");
  const seen = new Set<string>();
  expect([await taken(phone, seen), await taken(phone, seen), await taken(phone, seen)]).toEqual([
    "one",
    "two",
    "three",
  ]);
  await node.arrive("four");
  expect(await taken(phone, seen)).toBe("four");
  const again = await node.register("p1");
  await node.arrive("five");
  expect(await taken(again, new Set())).toBe("five");
});

test("a program that is gone without a word holds up neither another app's nor its own app's others", async () => {
  const node = await start({ gone: "p0", phone: "p1", desk: "p2" });
  await node.register("p0"); // these two never answer
  await node.register("p1");
  const [desk, second] = [await node.register("p2"), await node.register("p1")];
  await node.arrive("hello");
  expect([await taken(desk, new Set()), await taken(second, new Set())]).toEqual(["hello", "hello"]);
  await node.arrive("again");
  expect(await taken(desk, new Set())).toBe("again");
});

test("two programs with one app password are both shown what comes", async () => {
  const node = await start({ phone: "p1" });
  const [one, two] = [await node.register("p1"), await node.register("p1")];
  await node.arrive("hello");
  expect([await taken(one, new Set()), await taken(two, new Set())]).toEqual(["hello", "hello"]);
});

test("one program's no does not make the other's yes be forgotten", async () => {
  const node = await start({ phone: "p1" });
  const [busy, free] = [await node.register("p1"), await node.register("p1")];
  await node.arrive("hello");
  const came = await free.next();
  busy.answer(await busy.next(), 486);
  const options = request({
    method: "OPTIONS",
    headers: { via: `SIP/2.0/UDP 127.0.0.1:${busy.port};branch=z9hG4bKafter;rport` },
  });
  expect((await busy.ask(options)).status).toBe(200); // the no has been heard
  free.answer(came, 200);
  await node.arrive("next");
  expect(await taken(free, new Set([value(came.headers, "call-id") ?? ""]))).toBe("next");
});

test("a text that no program took is shown again at the next registration", async () => {
  const node = await start({ phone: "p1" });
  const phone = await node.register("p1");
  await node.arrive("hello");
  phone.answer(await phone.next(), 486);
  const again = await node.register("p1");
  expect(await taken(again, new Set())).toBe("hello");
});
