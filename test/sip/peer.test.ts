import { duplexPair } from "node:stream";
import { afterEach, describe, expect, test, vi } from "vitest";
import type { Inbox, PlainArrival, Stored } from "../../src/delivery/inbox.ts";
import type { PeerConnection } from "../../src/peertls-core/connection.ts";
import { peerCertificate } from "../../src/pki/certificate.ts";
import { parseIdentity } from "../../src/pki/identity.ts";
import { SuiteError } from "../../src/pki/suite-error.ts";
import { makeCpim } from "../../src/sip/cpim.ts";
import { type SipMessage, type SipResponse, StreamFramer, value } from "../../src/sip/grammar.ts";
import { responseTo, serialise } from "../../src/sip/message.ts";
import { PeerFlow } from "../../src/sip/peer-flow.ts";
import { servePeer } from "../../src/sip/server.ts";
import { makeTestDomain } from "../support/pki.ts";
import { recordLog } from "../support/record-log.ts";
import { request } from "./request.ts";

const owner = parseIdentity("bob@b.test");
const alice = makeTestDomain({ domain: "a.test" }).person({ identity: "alice@a.test" });

/** One end is a PeerFlow that serves; the other is the test's. */
function party(
  receivePlain: (arrival: PlainArrival) => Promise<Stored> = async () => ({
    id: "1" as Stored["id"],
    duplicate: false,
    digest: "",
  }),
  direction: "in" | "out" = "in",
) {
  const [ours, theirs] = duplexPair();
  const certificate = peerCertificate(alice.auth.certificate);
  const log = recordLog();
  const connection = {
    id: "c",
    direction,
    identity: alice.identity,
    certificate,
    fingerprint: certificate.fingerprint,
    localAddress: () => ({ host: "::1", port: 4605 }),
    stream: ours,
    destroy: () => ours.destroy(),
  } as unknown as PeerConnection;
  const inbox: Inbox = { receivePlain, receiveSealed: () => Promise.reject(new Error("not here")) };
  const served = { owner, inbox, tag: () => "tag", signal: new AbortController().signal };
  const flow = new PeerFlow(connection, (asked, from) => servePeer(asked, from, served), log);
  const framer = new StreamFramer();
  const queue: SipMessage[] = [];
  const waiting: ((message: SipMessage) => void)[] = [];
  let raw = "";
  theirs.on("data", (chunk: Buffer) => {
    raw += chunk.toString("latin1");
    for (const framed of framer.push(chunk)) {
      if (framed.kind !== "message") continue;
      const found = waiting.shift();
      if (found === undefined) queue.push(framed.message);
      else found(framed.message);
    }
  });
  theirs.on("error", () => undefined);
  const next = () => {
    const known = queue.shift();
    return known === undefined ? new Promise<SipMessage>((found) => waiting.push(found)) : Promise.resolve(known);
  };
  return {
    flow,
    log,
    ours,
    theirs,
    next,
    raw: () => raw,
    ask: async (bytes: Buffer | string) => {
      theirs.write(bytes);
      return (await next()) as SipResponse;
    },
  };
}

const cpim = (from = "sip:alice@a.test") =>
  makeCpim({
    from,
    to: "sip:bob@b.test",
    dateTime: "",
    messageId: "m",
    contentType: "text/plain",
    body: Buffer.from("hello"),
  });
const message = (o: Parameters<typeof request>[0] = {}, body = cpim()) =>
  serialise({ ...request({ ...o, headers: { "content-type": "message/cpim", ...o.headers } }), body });
const options = serialise(request({ method: "OPTIONS" }));

describe("what a peer's node meets", () => {
  test("a MESSAGE is answered 200 when it is durable, and not before", async () => {
    const durable = Promise.withResolvers<Stored>();
    const arrivals: PlainArrival[] = [];
    const { ask, theirs, next } = party((arrival) => {
      arrivals.push(arrival);
      return durable.promise;
    });
    theirs.write(message());
    expect((await ask(options)).headers.find(({ name }) => name === "cseq")?.value).toBe("1 OPTIONS");
    durable.resolve({ id: "1" as Stored["id"], duplicate: false, digest: "" });
    expect(await next()).toMatchObject({ status: 200 });
    expect(arrivals).toMatchObject([
      { kind: "message", messageId: "m", title: "hello", bytes: cpim(), peer: { identity: "alice@a.test" } },
    ]);
  });

  test.each<[string, Buffer, number]>([
    ["From another person", message({ headers: { from: "<sip:eve@a.test>;tag=1" } }), 403],
    ["P-Asserted-Identity of another person", message({ headers: { "p-asserted-identity": "<sip:eve@a.test>" } }), 403],
    ["CPIM From another person", message({}, cpim("sip:eve@a.test")), 403],
    ["to somebody who is not hosted here", message({ uri: "sip:carol@b.test" }), 404],
    ["not CPIM", message({ headers: { "content-type": "text/plain" } }), 415],
    ["broken CPIM", message({}, Buffer.from("x")), 400],
    ["another scheme", message({ uri: "tel:+1" }), 416],
    ["an extension", message({ headers: { require: "x" } }), 420],
    ["OPTIONS", options, 200],
    ["OPTIONS with an extension", serialise(request({ method: "OPTIONS", headers: { require: "x" } })), 420],
    ["REGISTER", serialise(request({ method: "REGISTER" })), 405],
    ["INVITE", serialise(request({ method: "INVITE" })), 405],
    ["an unknown method", serialise(request({ method: "FROB" })), 501],
    ["a malformed request", serialise(request({ headers: { "max-forwards": "x" } })), 400],
  ])("%s", async (_name, bytes, status) => {
    let stored = 0;
    const { ask } = party(async () => {
      stored += 1;
      return { id: "1" as Stored["id"], duplicate: false, digest: "" };
    });
    const answer = await ask(bytes);
    expect([answer.status, stored]).toEqual([status, 0]);
    expect(value(answer.headers, "to")).toMatch(/;tag=/);
    if (status === 405 || status === 501) expect(value(answer.headers, "allow")).toBe("MESSAGE, OPTIONS");
  });

  test.each<[SuiteError, number, string | undefined]>([
    [new SuiteError("quota-exceeded", "x", { fault: "peer", temporary: true }), 503, "5"],
    [new SuiteError("store-failed", "x", { fault: "local", temporary: true }), 500, undefined],
  ])("a message that cannot be kept (%s) is not confirmed", async (error, status, retry) => {
    const { ask, log } = party(() => Promise.reject(error));
    const answer = await ask(message());
    expect([answer.status, value(answer.headers, "retry-after")]).toEqual([status, retry]);
    expect(log.lines).toMatchObject([{ level: "warn", fields: { peer: "alice@a.test", error: error.code, status } }]);
  });

  test("an ACK is not answered; lost framing ends the stream", async () => {
    const { ask, theirs, next } = party();
    theirs.write(serialise(request({ method: "ACK" })));
    expect((await ask(options)).status).toBe(200);
    const ended = new Promise((resolve) => theirs.once("end", resolve));
    theirs.write(serialise(request()).toString().replace("Content-Length: 0", "Content-Length: -1"));
    expect(await next()).toMatchObject({ status: 400 });
    await ended;
  });
});

describe("responses", () => {
  const sent = request();

  test("one that fits is the answer", async () => {
    const { flow, theirs, next } = party();
    const answer = flow.request(sent, new AbortController().signal);
    const came = await next();
    theirs.write(serialise(responseTo(came, 202, "Accepted", "t")));
    expect((await answer)?.status).toBe(202);
  });

  test.each<[string, (answer: SipResponse) => SipResponse]>([
    [
      "with a malformed Via",
      (answer) => ({
        ...answer,
        headers: answer.headers.map((one) => (one.name === "via" ? { name: "via", value: "nonsense" } : one)),
      }),
    ],
    [
      "with the branch that is the cookie alone",
      (answer) => ({
        ...answer,
        headers: answer.headers.map((one) =>
          one.name === "via" ? { name: "via", value: "SIP/2.0/TLS h;branch=z9hG4bK" } : one,
        ),
      }),
    ],
    ["without Via", (answer) => ({ ...answer, headers: answer.headers.filter(({ name }) => name !== "via") })],
    [
      "with two Via (RFC 3261 §8.1.3.3)",
      (answer) => ({
        ...answer,
        headers: [{ name: "via", value: "SIP/2.0/TLS h;branch=z9hG4bK1" }, ...answer.headers],
      }),
    ],
    [
      "of another method",
      (answer) => ({
        ...answer,
        headers: answer.headers.map((one) => (one.name === "cseq" ? { name: "cseq", value: "1 INVITE" } : one)),
      }),
    ],
    ["without CSeq", (answer) => ({ ...answer, headers: answer.headers.filter(({ name }) => name !== "cseq") })],
  ])("one %s is dropped: it neither answers nor harms", async (_name, forge) => {
    const { flow, theirs, next, ask } = party();
    let answered = false;
    const answer = flow.request(sent, new AbortController().signal).then((response) => {
      answered = true;
      return response;
    });
    const came = await next();
    theirs.write(serialise(forge(responseTo(came, 200, "OK", "t"))));
    expect((await ask(options)).status).toBe(200);
    expect(answered).toBe(false);
    theirs.destroy();
    flow.connection.destroy();
    expect(await answer).toBeUndefined();
  });
});

describe("the stream's life", () => {
  afterEach(() => void vi.useRealTimers());

  test("a ping is answered; the answer to our own does not make us wait for more, and hang up", async () => {
    vi.useFakeTimers({ toFake: ["setTimeout", "clearTimeout"] });
    const { flow, ask, theirs, ours, raw } = party();
    flow.ping();
    theirs.write("\r\n");
    expect((await ask(Buffer.concat([Buffer.from("\r\n\r\n"), options]))).status).toBe(200);
    expect(raw()).toMatch(/^\r\n\r\n\r\nSIP/);
    theirs.write("\r\n");
    expect((await ask(options)).status).toBe(200);
    theirs.write("\r\n");
    await vi.waitFor(() => expect(ours.readableLength).toBe(0));
    vi.advanceTimersByTime(3_600_000);
    expect(ours.destroyed).toBe(false);
    expect((await ask(options)).status).toBe(200);
  });

  test.each([
    ["out", "\r\n\r\n\r\n\r\n", true],
    ["in", "", false],
  ] as const)("who dialled it pings (%s), and ends it if nobody answers", async (direction, said, ended) => {
    vi.useFakeTimers({ toFake: ["setTimeout", "clearTimeout", "performance"] });
    const { ours, raw } = party(undefined, direction);
    vi.advanceTimersByTime(44_000);
    await new Promise((done) => setImmediate(done));
    expect([raw(), ours.destroyed]).toEqual([said, false]);
    vi.advanceTimersByTime(600_000);
    expect(ours.destroyed).toBe(ended);
  });

  test("a message that came in two pieces is done: nobody waits for the rest of it", async () => {
    vi.useFakeTimers({ toFake: ["setTimeout", "clearTimeout"] });
    const { theirs, ours, ask } = party();
    theirs.write(options.subarray(0, 20));
    await new Promise((done) => setImmediate(done));
    expect((await ask(options.subarray(20))).status).toBe(200);
    vi.advanceTimersByTime(3_600_000);
    expect(ours.destroyed).toBe(false);
  });

  test("a message that comes drop by drop is waited for 10 s in all", async () => {
    vi.useFakeTimers({ toFake: ["setTimeout", "clearTimeout"] });
    const { theirs, ours, ask } = party();
    expect((await ask(options)).status).toBe(200);
    for (let n = 0; n < 3; n += 1) {
      theirs.write("M");
      await new Promise((done) => setImmediate(done));
      expect(ours.destroyed).toBe(false);
      vi.advanceTimersByTime(4_000);
    }
    expect(ours.destroyed).toBe(true);
  });
});
