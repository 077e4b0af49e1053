import { describe, expect, test } from "vitest";
import type { LocalFlow } from "../../src/sip/local-flow.ts";
import { Registrar } from "../../src/sip/registrar.ts";
import { VirtualTime } from "../support/virtual-time.ts";
import { request } from "./request.ts";

class ToyFlow implements LocalFlow {
  readonly id = "toy";
  readonly transport = "UDP";
  readonly remote = { host: "::1", port: 1 };
  readonly local = { host: "::1", port: 2 };
  alive = true;
  send(): void {}
}

function party() {
  const time = new VirtualTime();
  const registrar = new Registrar(time.now);
  const flow = new ToyFlow();
  let cseq = 0;
  const register = (
    contact: string | readonly string[] | undefined,
    o: { expires?: string; callId?: string; cseq?: number; flow?: LocalFlow } = {},
  ) =>
    registrar.register(
      request({
        method: "REGISTER",
        headers: { contact, expires: o.expires, "call-id": o.callId ?? "c", cseq: `${o.cseq ?? (cseq += 1)} REGISTER` },
      }),
      o.flow ?? flow,
      "phone",
    );
  return { time, registrar, flow, register, bound: () => registrar.bindings.map(({ contact }) => contact) };
}

describe("a REGISTER (RFC 3261 §10.3)", () => {
  test.each<[string, string, string | undefined, string[]]>([
    ["binds for 600 s if it says nothing", "<sip:a@h1>", undefined, ["<sip:a@h1>;expires=600"]],
    ["for as long as Expires says", "<sip:a@h1>", "120", ["<sip:a@h1>;expires=120"]],
    ["for as long as the Contact says, before Expires", "<sip:a@h1>;expires=200", "120", ["<sip:a@h1>;expires=200"]],
    ["for an hour at most", "<sip:a@h1>", "999999999", ["<sip:a@h1>;expires=3600"]],
    [
      "for the default if the number is none (RFC 4475 §3.1.2.4)",
      "<sip:a@h1>",
      "9999999999999999999",
      ["<sip:a@h1>;expires=600"],
    ],
    [
      "several contacts",
      "<sip:a@h1>, sip:b@h2;expires=60",
      undefined,
      ["<sip:a@h1>;expires=600", "<sip:b@h2>;expires=60"],
    ],
    ["one contact that is written in two ways once", "<sip:a@h1>, <sip:a@H1>", undefined, ["<sip:a@H1>;expires=600"]],
    [
      "one of two transports twice",
      "<sip:a@h1>, <sip:a@h1;transport=tcp>",
      undefined,
      ["<sip:a@h1>;expires=600", "<sip:a@h1;transport=tcp>;expires=600"],
    ],
    [
      "the Contact's own parameter not inside the URI (RFC 4475 §3.3.12)",
      "sip:+1@gw1.example.net;unknownparam",
      undefined,
      ["<sip:+1@gw1.example.net>;expires=600"],
    ],
    [
      "the URI's parameter inside it (§3.3.13)",
      "<sip:+1@gw1.example.net;unknownparam>",
      undefined,
      ["<sip:+1@gw1.example.net;unknownparam>;expires=600"],
    ],
    [
      "the URI's headers with it (§3.3.14)",
      "<sip:u@example.com?Route=%3Csip:s.example.com%3E>",
      undefined,
      ["<sip:u@example.com?Route=%3Csip:s.example.com%3E>;expires=600"],
    ],
    [
      "an escaped NUL as it stands (§3.1.1.4)",
      "<sip:%00@h5>, <sip:%00%00@h5>",
      undefined,
      ["<sip:%00@h5>;expires=600", "<sip:%00%00@h5>;expires=600"],
    ],
  ])("%s", (_name, contact, expires, answer) => {
    expect(party().register(contact, expires === undefined ? {} : { expires })).toEqual(answer);
  });

  test("without Contact asks what is bound, and for how long still", () => {
    const { register, time } = party();
    register("<sip:a@h1>");
    time.advance(100_000);
    expect(register(undefined)).toEqual(["<sip:a@h1>;expires=500"]);
  });

  test.each<[string, string | readonly string[], string | undefined, string]>([
    ["a life under a minute", "<sip:a@h2>", "59", "limit-exceeded"],
    ["* with a life", "*", "60", "syntax"],
    ["* without Expires", "*", undefined, "syntax"],
    ["* beside another", ["*", "<sip:a@h2>"], "0", "syntax"],
    ["a Contact that is none", "<>", undefined, "syntax"],
    ["a Contact of another scheme (RFC 4475 §3.3.4)", "<name:John_Smith>", undefined, "syntax"],
    ["a good and a bad Contact", ["<sip:a@h2>", "<>"], undefined, "syntax"],
    ["eleven contacts", Array.from({ length: 11 }, (_one, n) => `<sip:a@h${n + 2}>`), undefined, "forbidden"],
  ])("%s is refused, and nothing changes", (_name, contact, expires, code) => {
    const { register, bound } = party();
    register("<sip:a@h1>");
    expect(() => register(contact, expires === undefined ? {} : { expires })).toThrow(
      expect.objectContaining({ code }),
    );
    expect(bound()).toEqual(["sip:a@h1"]);
  });

  test("ten are taken, and the eleventh is refused only if none goes", () => {
    const { register, bound } = party();
    register(Array.from({ length: 10 }, (_one, n) => `<sip:a@h${n}>`));
    expect(() => register("<sip:a@h10>")).toThrow(expect.objectContaining({ code: "forbidden" }));
    register(["<sip:a@h0>;expires=0", "<sip:a@h10>"]);
    expect(bound()).toHaveLength(10);
  });

  test("Expires 0 removes one, * all", () => {
    const { register, bound } = party();
    register(["<sip:a@h1>", "<sip:a@h2>", "<sip:a@h3>"]);
    register("<sip:a@h2>", { expires: "0" });
    expect(bound()).toEqual(["sip:a@h1", "sip:a@h3"]);
    register("*", { expires: "0" });
    expect(bound()).toEqual([]);
  });

  test("an older or repeated CSeq of the same Call-ID is out of order; of another it is not", () => {
    const { register } = party();
    register("<sip:a@h1>", { cseq: 5 });
    for (const cseq of [5, 4])
      expect(() => register("<sip:a@h1>", { cseq })).toThrow(expect.objectContaining({ code: "conflict" }));
    expect(() => register("*", { cseq: 4, expires: "0" })).toThrow(expect.objectContaining({ code: "conflict" }));
    expect(register("<sip:a@h1>", { cseq: 4, callId: "other" })).toHaveLength(1);
  });
});

test("a binding ends with its time, and with its stream", () => {
  const { register, bound, time, flow } = party();
  register("<sip:a@h1>", { expires: "60" });
  time.advance(59_999);
  expect(bound()).toHaveLength(1);
  time.advance(1);
  expect(bound()).toEqual([]);
  register("<sip:a@h1>");
  flow.alive = false;
  expect(bound()).toEqual([]);
});
