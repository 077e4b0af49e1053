import { afterEach, beforeEach, describe, expect, test, vi } from "vitest";
import type { SipResponse } from "../../src/sip/grammar.ts";
import { responseTo } from "../../src/sip/message.ts";
import { ClientTransactions, responseKey, ServerTransactions, transactionKey } from "../../src/sip/transactions.ts";
import { request } from "./request.ts";

beforeEach(() => void vi.useFakeTimers());
afterEach(() => void vi.useRealTimers());

const via = (value: string) => request({ headers: { via: value } });
const key = (value: string, o: Parameters<typeof request>[0] = {}) =>
  transactionKey(request({ ...o, headers: { ...o.headers, via: value } }), o.method ?? "MESSAGE");

describe("what names a transaction (RFC 3261 §17.2.3)", () => {
  const one = "SIP/2.0/UDP h:1;branch=z9hG4bKa";

  test.each<[string, string, string, boolean]>([
    ["the same Via", one, one, true],
    ["a Via that also tells where it came from", one, `${one};received=::1;rport=9`, true],
    ["another branch", one, "SIP/2.0/UDP h:1;branch=z9hG4bKb", false],
    ["another host", one, "SIP/2.0/UDP i:1;branch=z9hG4bKa", false],
    ["another port", one, "SIP/2.0/UDP h:2;branch=z9hG4bKa", false],
  ])("%s", (_name, a, b, same) => {
    expect(key(a) === key(b)).toBe(same);
  });

  test("another method is another one", () => {
    expect(key(one)).not.toBe(key(one, { method: "REGISTER" }));
  });

  test.each<[string, Parameters<typeof request>[0]]>([
    ["Call-ID", { headers: { "call-id": "other" } }],
    ["CSeq", { headers: { cseq: "2 MESSAGE" } }],
    ["From", { headers: { from: "<sip:alice@a.test>;tag=2" } }],
    ["Request-URI", { uri: "sip:carol@b.test" }],
  ])("without the magic cookie (RFC 2543) another %s is another one", (_name, o) => {
    for (const old of ["SIP/2.0/UDP h:1", "SIP/2.0/UDP h:1;branch=1"]) {
      expect(key(old)).toBe(key(old));
      expect(key(old)).not.toBe(key(old, o));
    }
  });

  test("the cookie alone names none (RFC 4475 §3.2.1)", () => {
    expect(() => key("SIP/2.0/UDP h:1;branch=z9hG4bK")).toThrow(expect.objectContaining({ code: "syntax" }));
  });

  test("a response is of the request's transaction, if its one Via is ours", () => {
    const sent = via(one);
    const answer = responseTo(sent, 200, "OK", "t");
    expect(responseKey(answer)).toBe(transactionKey(sent, "MESSAGE"));
    const with2 = { ...answer, headers: [...answer.headers, { name: "via", value: one }] };
    const bad = {
      ...answer,
      headers: answer.headers.map((field) => (field.name === "via" ? { ...field, value: "nonsense" } : field)),
    };
    const none = { ...answer, headers: answer.headers.filter(({ name }) => name !== "via") };
    for (const stray of [with2, bad, none]) expect(responseKey(stray)).toBeUndefined();
  });
});

describe("a request that was taken", () => {
  test("is answered again from memory over UDP, for 32 s", () => {
    const server = new ServerTransactions();
    expect(server.begin("k")).toBe("new");
    expect(server.begin("k")).toBe("pending");
    server.end("k", Buffer.from("answer"), true);
    vi.advanceTimersByTime(31_999);
    expect(server.begin("k").toString()).toBe("answer");
    vi.advanceTimersByTime(1);
    expect(server.begin("k")).toBe("new");
  });

  test("is forgotten at once over a stream", () => {
    const server = new ServerTransactions();
    server.begin("k");
    server.end("k", Buffer.from("answer"), false);
    expect(server.begin("k")).toBe("new");
    expect(vi.getTimerCount()).toBe(0);
  });

  test("20,000 are open at most", () => {
    const server = new ServerTransactions();
    for (let n = 0; n < 20_000; n += 1) expect(server.begin(`${n}`)).toBe("new");
    expect(server.begin("more")).toBe("full");
    expect(server.begin("5")).toBe("pending");
    server.end("5", Buffer.alloc(0), false);
    expect(server.begin("more")).toBe("new");
    server.stop();
  });
});

describe("a request that was sent (§17.1.2)", () => {
  const response = (status: number): SipResponse => ({
    kind: "response",
    status,
    reason: "",
    headers: [],
    body: Buffer.alloc(0),
  });
  function sent(unreliable: boolean, signal = new AbortController().signal) {
    const client = new ClientTransactions();
    const at: number[] = [];
    const start = Date.now();
    const answer = client.send("k", Buffer.from("x"), () => void at.push(Date.now() - start), unreliable, signal);
    return { client, at, answer };
  }

  test("goes out again over UDP after T1, doubling to T2, until 64·T1", async () => {
    const { at, answer } = sent(true);
    await vi.advanceTimersByTimeAsync(40_000);
    expect(at).toEqual([0, 500, 1_500, 3_500, 7_500, 11_500, 15_500, 19_500, 23_500, 27_500, 31_500]);
    expect(await answer).toBeUndefined();
    expect(vi.getTimerCount()).toBe(0);
  });

  test("goes out once over a stream", async () => {
    const { at, answer } = sent(false);
    await vi.advanceTimersByTimeAsync(40_000);
    expect(at).toEqual([0]);
    expect(await answer).toBeUndefined();
  });

  test("is answered by the first final response; provisional ones are not it; late ones are strays", async () => {
    const { client, at, answer } = sent(true);
    expect(client.receive("k", response(100))).toBe(true);
    expect(client.receive("other", response(200))).toBe(false);
    expect(client.receive("k", response(202))).toBe(true);
    expect((await answer)?.status).toBe(202);
    await vi.advanceTimersByTimeAsync(40_000);
    expect(at).toEqual([0]);
    expect(client.receive("k", response(200))).toBe(false);
    expect(client.receive(undefined, response(200))).toBe(false);
  });

  test("ends without an answer when it is given up, was given up before, or all is stopped", async () => {
    const controller = new AbortController();
    const one = sent(true, controller.signal);
    controller.abort();
    expect(await one.answer).toBeUndefined();
    const two = sent(true, controller.signal);
    expect(await two.answer).toBeUndefined();
    expect(two.at).toEqual([]);
    const three = sent(true);
    three.client.stop();
    expect(await three.answer).toBeUndefined();
    expect(vi.getTimerCount()).toBe(0);
  });
});
