import type { SipHeader, SipRequest } from "../../src/sip/grammar.ts";

/** A request as the framer would give it; `headers` replace those of the same name or are added, undefined ones go. */
export function request(
  o: {
    method?: string;
    uri?: string;
    headers?: Record<string, string | readonly string[] | undefined>;
    body?: string;
  } = {},
): SipRequest {
  const method = o.method ?? "MESSAGE";
  const fields: Record<string, string | readonly string[] | undefined> = {
    via: "SIP/2.0/UDP 127.0.0.1:5070;branch=z9hG4bK1",
    from: "<sip:alice@a.test>;tag=1",
    to: "<sip:bob@b.test>",
    "call-id": "c1",
    cseq: `1 ${method}`,
    ...o.headers,
  };
  const headers: SipHeader[] = Object.entries(fields).flatMap(([name, value]) =>
    value === undefined ? [] : (typeof value === "string" ? [value] : value).map((one) => ({ name, value: one })),
  );
  return { kind: "request", method, uri: o.uri ?? "sip:bob@b.test", headers, body: Buffer.from(o.body ?? "") };
}
