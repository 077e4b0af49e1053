import { randomBytes } from "node:crypto";
import { afterEach, describe, expect, test, vi } from "vitest";
import type { OwnerAccess } from "../../src/delivery/owner-access.ts";
import { type LocalUdp, listenLocal, listenUdp } from "../../src/peertls-core/loopback.ts";
import { type Identity, parseIdentity } from "../../src/pki/identity.ts";
import { SuiteError } from "../../src/pki/suite-error.ts";
import { type SipRequest, type SipResponse, value, values } from "../../src/sip/grammar.ts";
import { parseAuthParameters } from "../../src/sip/headers.ts";
import { LocalSip } from "../../src/sip/local.ts";
import { serialise } from "../../src/sip/message.ts";
import { recordLog } from "../support/record-log.ts";
import { authorization, hashed } from "./digest-client.ts";
import { type Phone, startPhone } from "./phone.ts";
import { request } from "./request.ts";

const owner = parseIdentity("alice@a.test");
const bob = parseIdentity("bob@b.test");

async function startLocal() {
  const passwords = new Map([["phone", "p1"]]);
  const access: OwnerAccess = {
    owner,
    realm: "a.test",
    verify: () => undefined,
    ha1s: (algorithm) =>
      [...passwords].map(([id, password]) => ({ id, ha1: hashed(algorithm, `alice:a.test:${password}`) })),
  };
  const submitted: [Identity, string][] = [];
  const registered: string[] = [];
  const party = {
    passwords,
    submitted,
    registered,
    log: recordLog(),
    clockAhead: 0,
    submit: async (): Promise<"delivered" | "accepted"> => "delivered",
  };
  const sip = new LocalSip({
    access,
    clock: () => new Date(Date.now() + party.clockAhead),
    random: randomBytes,
    log: party.log,
    submit: (to, text) => {
      submitted.push([to, text]);
      return party.submit();
    },
    onRegistered: (app) => registered.push(app),
  });
  const tcp = await listenLocal({ host: "127.0.0.1", port: 0 }, (socket) => sip.acceptStream(socket, "TCP"));
  const udp: LocalUdp = await listenUdp({ host: "127.0.0.1", port: tcp.address.port }, (bytes, from) =>
    sip.acceptDatagram(udp, bytes, from),
  );
  return {
    ...party,
    party,
    sip,
    phone: (transport: "UDP" | "TCP") => startPhone(transport, tcp.address),
    [Symbol.asyncDispose]: async () => {
      sip.stop();
      await tcp.close();
      await udp.close();
    },
  };
}

/** Makes requests of one phone: a new branch each, rising CSeq; and proofs for challenges. */
function dialog(phone: Phone) {
  let cseq = 0;
  const make = (method: string, o: Parameters<typeof request>[0] = {}): SipRequest =>
    request({
      method,
      uri: method === "REGISTER" ? "sip:a.test" : "sip:bob@b.test",
      ...o,
      headers: {
        via: `SIP/2.0/${phone.transport} 127.0.0.1:${phone.port};branch=z9hG4bK${randomBytes(8).toString("hex")};rport`,
        from: "<sip:alice@a.test>;tag=1",
        to: method === "REGISTER" ? "<sip:alice@a.test>" : "<sip:bob@b.test>",
        cseq: `${(cseq += 1)} ${method}`,
        ...(method === "REGISTER" ? { contact: `<sip:alice@127.0.0.1:${phone.port}>` } : {}),
        ...o.headers,
      },
    });
  const nonceOf = (response: SipResponse) =>
    parseAuthParameters(value(response.headers, "www-authenticate") ?? "").parameters.get("nonce") ?? "";
  const proof = (
    method: string,
    uri: string,
    nonce: string,
    o: { password?: string; nc?: number; algorithm?: "MD5" | "SHA-256" } = {},
  ) =>
    authorization({
      user: "alice",
      realm: "a.test",
      password: "p1",
      nc: 1,
      algorithm: "SHA-256",
      method,
      uri,
      nonce,
      ...o,
    });
  const proven = async (
    method: string,
    o: Parameters<typeof request>[0] = {},
    by: Parameters<typeof proof>[3] = {},
  ) => {
    const challenge = await phone.ask(make(method, o));
    expect(challenge.status).toBe(401);
    const uri = o?.uri ?? (method === "REGISTER" ? "sip:a.test" : "sip:bob@b.test");
    return phone.ask(
      make(method, { ...o, headers: { ...o?.headers, authorization: proof(method, uri, nonceOf(challenge), by) } }),
    );
  };
  return { make, nonceOf, proof, proven };
}

describe.each(["UDP", "TCP"] as const)("a program on this machine, over %s", (transport) => {
  test.each(["SHA-256", "MD5"] as const)(
    "is challenged, proves itself by %s, is bound, asks, and is unbound",
    async (algorithm) => {
      await using node = await startLocal();
      using phone = await node.phone(transport);
      const { make, nonceOf, proof, proven } = dialog(phone);
      const challenge = await phone.ask(make("REGISTER"));
      expect([challenge.status, values(challenge.headers, "www-authenticate").length > 0]).toEqual([401, true]);
      expect(node.sip.bindings).toEqual([]);
      const nonce = nonceOf(challenge);
      const ok = await phone.ask(
        make("REGISTER", { headers: { authorization: proof("REGISTER", "sip:a.test", nonce, { algorithm }) } }),
      );
      expect([ok.status, value(ok.headers, "contact")]).toEqual([
        200,
        `<sip:alice@127.0.0.1:${phone.port}>;expires=600`,
      ]);
      expect(value(ok.headers, "to")).toMatch(/;tag=[0-9a-f]{16}$/);
      expect(node.sip.bindings).toMatchObject([{ app: "phone", contact: `sip:alice@127.0.0.1:${phone.port}` }]);
      expect(node.registered).toEqual(["phone"]);
      const gone = await proven("REGISTER", { headers: { expires: "0", contact: "*" } });
      expect([gone.status, value(gone.headers, "contact")]).toEqual([200, undefined]);
      expect(node.sip.bindings).toEqual([]);
    },
  );

  test("with a wrong password gets nothing but a new challenge, which is not stale", async () => {
    await using node = await startLocal();
    using phone = await node.phone(transport);
    const refused = await dialog(phone).proven("REGISTER", {}, { password: "wrong" });
    expect(refused.status).toBe(401);
    expect(value(refused.headers, "www-authenticate")).not.toContain("stale");
    expect([node.sip.bindings, node.registered]).toEqual([[], []]);
  });

  test("with a nonce that has grown old is told stale, and comes in with the new one", async () => {
    await using node = await startLocal();
    using phone = await node.phone(transport);
    const { make, nonceOf, proof } = dialog(phone);
    const old = nonceOf(await phone.ask(make("REGISTER")));
    node.party.clockAhead = 301_000;
    const again = await phone.ask(
      make("REGISTER", { headers: { authorization: proof("REGISTER", "sip:a.test", old) } }),
    );
    expect([again.status, value(again.headers, "www-authenticate")]).toEqual([
      401,
      expect.stringContaining("stale=true"),
    ]);
    expect(node.sip.bindings).toEqual([]);
    const ok = await phone.ask(
      make("REGISTER", { headers: { authorization: proof("REGISTER", "sip:a.test", nonceOf(again)) } }),
    );
    expect(ok.status).toBe(200);
  });

  test("that replays another's proof gets nothing", async () => {
    await using node = await startLocal();
    using phone = await node.phone(transport);
    using thief = await node.phone(transport);
    const { make, nonceOf, proof } = dialog(phone);
    const header = proof("REGISTER", "sip:a.test", nonceOf(await phone.ask(make("REGISTER"))));
    expect((await phone.ask(make("REGISTER", { headers: { authorization: header } }))).status).toBe(200);
    expect((await phone.ask(make("REGISTER", { headers: { authorization: header } }))).status).toBe(401);
    expect((await thief.ask(dialog(thief).make("REGISTER", { headers: { authorization: header } }))).status).toBe(401);
    expect(node.sip.bindings).toHaveLength(1);
  });

  test.each([
    ["delivered", 200],
    ["accepted", 202],
  ] as const)("sends a text, which is %s: %i", async (outcome, status) => {
    await using node = await startLocal();
    using phone = await node.phone(transport);
    node.party.submit = async () => outcome;
    const sent = await dialog(phone).proven("MESSAGE", {
      body: "héllo",
      headers: { "content-type": "text/plain;charset=utf-8" },
    });
    expect(sent.status).toBe(status);
    expect(node.submitted).toEqual([[bob, "héllo"]]);
  });

  test.each<[string, Parameters<typeof request>[0], number]>([
    ["under another name", { headers: { from: "<sip:eve@a.test>;tag=1" } }, 403],
    ["under a telephone number", { headers: { from: "<tel:+1>;tag=1" } }, 400],
    ["to nobody", { uri: "sip:b.test" }, 400],
    ["to another scheme", { uri: "tel:+1" }, 416],
    ["with an extension", { headers: { require: "gruu" } }, 420],
  ])("a text %s is refused before any challenge", async (_name, o, status) => {
    await using node = await startLocal();
    using phone = await node.phone(transport);
    const { make } = dialog(phone);
    expect((await phone.ask(make("MESSAGE", o))).status).toBe(status);
    expect(node.submitted).toEqual([]);
  });

  test.each<[string, Parameters<typeof request>[0], number]>([
    ["of HTML", { headers: { "content-type": "text/html" } }, 415],
    ["that is no UTF-8", { headers: { "content-type": "message/cpim" }, body: "x" }, 400],
  ])("a text %s is refused", async (_name, o, status) => {
    await using node = await startLocal();
    using phone = await node.phone(transport);
    expect((await dialog(phone).proven("MESSAGE", o)).status).toBe(status);
    expect(node.submitted).toEqual([]);
  });

  test.each<[SuiteError, number]>([
    [new SuiteError("store-failed", "x", { fault: "local", temporary: true }), 500],
    [new SuiteError("unknown-recipient", "x", { fault: "peer" }), 404],
    [new SuiteError("quota-exceeded", "x", { fault: "local", temporary: true }), 503],
  ])("a text that cannot be taken (%s) is answered so, never by yes", async (error, status) => {
    await using node = await startLocal();
    using phone = await node.phone(transport);
    node.party.submit = () => Promise.reject(error);
    expect((await dialog(phone).proven("MESSAGE", { body: "x" })).status).toBe(status);
  });

  test.each<[string, Parameters<typeof request>[0], number]>([
    ["another person", { headers: { to: "<sip:eve@a.test>" } }, 404],
    ["the owner as somebody else", { headers: { from: "<sip:eve@a.test>;tag=1" } }, 403],
    [
      "a book (RFC 4475 §3.3.4)",
      { headers: { to: "isbn:2983792873", from: "<http://www.example.com>;tag=1", contact: "<name:John_Smith>" } },
      400,
    ],
  ])("cannot register %s", async (_name, o, status) => {
    await using node = await startLocal();
    using phone = await node.phone(transport);
    expect((await phone.ask(dialog(phone).make("REGISTER", o))).status).toBe(status);
  });

  test.each<[string, Parameters<typeof request>[0], number, [string, string]?]>([
    ["for 30 s", { headers: { expires: "30" } }, 423, ["min-expires", "60"]],
    ["a Contact of another scheme", { headers: { contact: "<name:John_Smith>" } }, 400],
    [
      "a Contact with headers outside brackets (RFC 4475 §3.1.2.13)",
      { headers: { contact: "sip:user@example.com?Route=%3Csip:s%3E" } },
      400,
    ],
    ["eleven contacts", { headers: { contact: Array.from({ length: 11 }, (_one, n) => `<sip:a@h${n}>`) } }, 403],
  ])("cannot register %s", async (_name, o, status, header) => {
    await using node = await startLocal();
    using phone = await node.phone(transport);
    const refused = await dialog(phone).proven("REGISTER", o);
    expect(refused.status).toBe(status);
    if (header !== undefined) expect(value(refused.headers, header[0])).toBe(header[1]);
    expect(node.sip.bindings).toEqual([]);
  });

  test.each<[string, number]>([
    ["OPTIONS", 200],
    ["INVITE", 405],
    ["SUBSCRIBE", 405],
    ["RE%47IST%45R", 501],
    ["register", 501],
  ])("%s is answered %i, with what is allowed", async (method, status) => {
    await using node = await startLocal();
    using phone = await node.phone(transport);
    const answer = await phone.ask(dialog(phone).make(method));
    expect([answer.status, value(answer.headers, "allow")]).toEqual([status, "REGISTER, MESSAGE, OPTIONS"]);
  });

  test("an ACK and a response, even a malformed one, are never answered", async () => {
    await using node = await startLocal();
    using phone = await node.phone(transport);
    const { make } = dialog(phone);
    phone.send(serialise(make("ACK")));
    for (const via of ["SIP/2.0/UDP h;branch=z9hG4bKx", "nonsense"])
      phone.send(
        serialise({
          kind: "response",
          status: 200,
          reason: "OK",
          headers: make("MESSAGE", { headers: { via } }).headers,
          body: Buffer.alloc(0),
        }),
      );
    phone.send("SIP/2.0 999 Over\r\nVia: SIP/2.0/UDP h\r\nContent-Length: 0\r\n\r\n");
    expect((await phone.ask(make("OPTIONS"))).status).toBe(200);
  });

  test("is shown a text, and only its 2xx means that it took it", async () => {
    await using node = await startLocal();
    using phone = await node.phone(transport);
    await dialog(phone).proven("REGISTER");
    const [binding] = node.sip.bindings;
    if (binding === undefined) throw new Error("not bound");
    for (const [status, taken] of [
      [200, true],
      [486, false],
    ] as const) {
      const shown = node.sip.show(binding, bob, "héllo ✓", new AbortController().signal);
      const came = await phone.next();
      expect(came).toMatchObject({
        kind: "request",
        method: "MESSAGE",
        uri: `sip:alice@127.0.0.1:${phone.port}`,
        body: Buffer.from("héllo ✓"),
      });
      expect(value(came.headers, "from")).toMatch(/^<sip:bob@b\.test>;tag=/);
      phone.answer(came, 100);
      phone.answer(came, status);
      expect(await shown).toBe(taken);
    }
    const controller = new AbortController();
    const unanswered = node.sip.show(binding, bob, "x", controller.signal);
    await phone.next();
    controller.abort();
    expect(await unanswered).toBe(false);
  });
});

describe("over UDP", () => {
  test("a repeated request gets the same answer and is done once", async () => {
    await using node = await startLocal();
    using phone = await node.phone("UDP");
    const { make, nonceOf, proof } = dialog(phone);
    const nonce = nonceOf(await phone.ask(make("MESSAGE")));
    const bytes = serialise(
      make("MESSAGE", { body: "once", headers: { authorization: proof("MESSAGE", "sip:bob@b.test", nonce) } }),
    );
    phone.send(bytes);
    const first = await phone.next();
    phone.send(bytes);
    expect(await phone.next()).toEqual(first);
    expect(first).toMatchObject({ status: 200 });
    expect(node.submitted).toHaveLength(1);
  });

  test("a request repeated while it is being handled is handled once", async () => {
    await using node = await startLocal();
    using phone = await node.phone("UDP");
    const held = Promise.withResolvers<"accepted">();
    node.party.submit = () => held.promise;
    const { make, nonceOf, proof } = dialog(phone);
    const nonce = nonceOf(await phone.ask(make("MESSAGE")));
    const bytes = serialise(
      make("MESSAGE", { body: "once", headers: { authorization: proof("MESSAGE", "sip:bob@b.test", nonce) } }),
    );
    phone.send(bytes);
    phone.send(bytes);
    expect((await phone.ask(make("OPTIONS"))).status).toBe(200);
    held.resolve("accepted");
    expect(await phone.next()).toMatchObject({ status: 202 });
    expect(node.submitted).toHaveLength(1);
  });

  test("every request proves itself; a registration does not open the door for others at that port", async () => {
    await using node = await startLocal();
    using phone = await node.phone("UDP");
    const { make, proven } = dialog(phone);
    await proven("REGISTER");
    expect((await phone.ask(make("MESSAGE", { body: "x" }))).status).toBe(401);
    expect(node.submitted).toEqual([]);
  });

  test("two RFC 2543 requests without branch are two (RFC 4475 §3.4.1); a cookie alone is refused (§3.2.1)", async () => {
    await using node = await startLocal();
    using phone = await node.phone("UDP");
    const { make } = dialog(phone);
    const via = `SIP/2.0/UDP 127.0.0.1:${phone.port}`;
    for (const status of [405, 405])
      expect((await phone.ask(make("INVITE", { headers: { via } }))).status).toBe(status);
    expect((await phone.ask(make("OPTIONS", { headers: { via: `${via};branch=z9hG4bK` } }))).status).toBe(400);
  });

  test("the answer tells where the request came from", async () => {
    await using node = await startLocal();
    using phone = await node.phone("UDP");
    const answer = await phone.ask(
      dialog(phone).make("OPTIONS", {
        headers: { via: "SIP/2.0/UDP elsewhere.test:1;rport;received=9.9.9.9;branch=z9hG4bK5" },
      }),
    );
    expect(value(answer.headers, "via")).toBe(
      `SIP/2.0/UDP elsewhere.test:1;rport=${phone.port};branch=z9hG4bK5;received=127.0.0.1`,
    );
  });

  test("line ends alone are not answered; a malformed datagram gets its 400 with the fields that it had", async () => {
    await using node = await startLocal();
    using phone = await node.phone("UDP");
    phone.send("\r\n\r\n");
    phone.send("nonsense");
    phone.send("MESSAGE sip:a@b SIP/2.0\r\nVia: SIP/2.0/UDP h\r\nCSeq: 7 MESSAGE\r\n\r\n");
    const refused = await phone.next();
    expect(refused).toMatchObject({ status: 400, reason: "Missing from" });
    expect(refused.headers.filter(({ name }) => name !== "content-length")).toEqual([
      { name: "via", value: "SIP/2.0/UDP h" },
      { name: "cseq", value: "7 MESSAGE" },
    ]);
  });
});

describe("over a stream", () => {
  afterEach(() => void vi.useRealTimers());

  test("who has proven himself stays proven until his app password is revoked", async () => {
    await using node = await startLocal();
    using phone = await node.phone("TCP");
    const { make, proven } = dialog(phone);
    await proven("REGISTER");
    expect((await phone.ask(make("MESSAGE", { body: "one" }))).status).toBe(200);
    node.passwords.delete("phone");
    expect((await phone.ask(make("MESSAGE", { body: "two" }))).status).toBe(401);
    expect(node.submitted).toEqual([[bob, "one"]]);
  });

  test("CRLFCRLF is answered by CRLF (RFC 5626 §3.5.1)", async () => {
    await using node = await startLocal();
    using phone = await node.phone("TCP");
    phone.send("\r\n\r\n");
    await phone.ask(dialog(phone).make("OPTIONS"));
    expect(phone.received().toString()).toMatch(/^\r\nSIP\/2\.0 200/);
  });

  test("one octet at a time the answers are the same", async () => {
    await using node = await startLocal();
    using phone = await node.phone("TCP");
    for (const octet of serialise(dialog(phone).make("OPTIONS"))) phone.send(Buffer.of(octet));
    expect(await phone.next()).toMatchObject({ status: 200 });
  });

  test("a malformed request is answered and the stream lives; lost framing is answered and ends it", async () => {
    await using node = await startLocal();
    using phone = await node.phone("TCP");
    const { make } = dialog(phone);
    expect((await phone.ask(make("MESSAGE", { headers: { "max-forwards": "x" } }))).status).toBe(400);
    phone.send(
      serialise(make("MESSAGE"))
        .toString()
        .replace(/Content-Length: 0/, "Content-Length: none"),
    );
    expect(await phone.next()).toMatchObject({ status: 400, reason: "Content-Length needed" });
    await phone.closed;
  });

  test("a body over 64 KiB gets 413 and the next request its answer", async () => {
    await using node = await startLocal();
    using phone = await node.phone("TCP");
    const { make } = dialog(phone);
    expect((await phone.ask(make("MESSAGE", { body: "x".repeat(100_000) }))).status).toBe(413);
    expect((await phone.ask(make("OPTIONS"))).status).toBe(200);
  });

  test("a binding goes with its stream", async () => {
    await using node = await startLocal();
    {
      using phone = await node.phone("TCP");
      await dialog(phone).proven("REGISTER");
      expect(node.sip.bindings).toHaveLength(1);
    }
    await vi.waitFor(() => expect(node.sip.bindings).toEqual([]), 5_000);
  });

  test("who is silent for 30 s goes; who has proven himself stays", async () => {
    vi.useFakeTimers({ toFake: ["setTimeout", "clearTimeout"] });
    await using node = await startLocal();
    using silent = await node.phone("TCP");
    using phone = await node.phone("TCP");
    expect((await silent.ask(dialog(silent).make("OPTIONS"))).status).toBe(200);
    const { make, proven } = dialog(phone);
    await proven("REGISTER");
    vi.advanceTimersByTime(29_999);
    expect((await silent.ask(dialog(silent).make("OPTIONS"))).status).toBe(200);
    vi.advanceTimersByTime(1);
    await silent.closed;
    expect((await phone.ask(make("OPTIONS"))).status).toBe(200);
  });

  test("a message that comes drop by drop is waited for 10 s from its first octet, not from its last", async () => {
    vi.useFakeTimers({ toFake: ["setTimeout", "clearTimeout"] });
    await using node = await startLocal();
    using phone = await node.phone("TCP");
    const { make, proven } = dialog(phone);
    await proven("REGISTER");
    // A ping and a whole message behind it show that the octets before were taken.
    phone.send("\r\n");
    expect((await phone.ask(make("OPTIONS"))).status).toBe(200);
    vi.advanceTimersByTime(60_000);
    expect((await phone.ask(make("OPTIONS"))).status).toBe(200);
    const halves = serialise(make("OPTIONS"));
    phone.send(halves.subarray(0, 20));
    using between = await node.phone("TCP");
    await between.ask(dialog(between).make("OPTIONS"));
    phone.send(halves.subarray(20));
    expect(await phone.next()).toMatchObject({ status: 200 });
    vi.advanceTimersByTime(60_000);
    expect((await phone.ask(make("OPTIONS"))).status).toBe(200);
    const drops = serialise(make("OPTIONS"));
    const taken = async () => {
      // One program's answer proves that the event loop has read the other's octet: both are local sockets.
      using other = await node.phone("TCP");
      await other.ask(dialog(other).make("OPTIONS"));
    };
    for (const octet of drops.subarray(0, 3)) {
      phone.send(Buffer.of(octet));
      await taken();
      vi.advanceTimersByTime(4_000);
    }
    await phone.closed;
  });

  test("the 65th stream is closed at once", async () => {
    await using node = await startLocal();
    const phones = await Promise.all(Array.from({ length: 64 }, () => node.phone("TCP")));
    for (const phone of phones) await phone.ask(dialog(phone).make("OPTIONS"));
    using more = await node.phone("TCP");
    await more.closed;
    phones[0]?.[Symbol.dispose]();
    await vi.waitFor(async () => {
      using next = await node.phone("TCP");
      const answered = next.ask(dialog(next).make("OPTIONS")).then(({ status }) => status);
      expect(await Promise.race([answered, next.closed])).toBe(200);
    }, 5_000);
    for (const phone of phones.slice(1)) phone[Symbol.dispose]();
  });
});

test("no secret is ever in the log", async () => {
  await using node = await startLocal();
  using phone = await node.phone("TCP");
  const { proven } = dialog(phone);
  await proven("REGISTER");
  await proven("MESSAGE", { body: "the secret text", headers: { authorization: "x" } }).catch(() => undefined);
  expect(JSON.stringify(node.log.lines)).not.toMatch(/secret|p1|response=/);
});
