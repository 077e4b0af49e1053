import { SuiteError } from "../pki/suite-error.ts";

/** A Message/CPIM object (RFC 3862) with what RFC 5438 says about its disposition. */
export interface Cpim {
  from: string;
  to: string;
  dateTime: string;
  messageId: string;
  contentType: string;
  body: Buffer;
}

const MAX_HEADER = 16_384;
const IMDN = "urn:ietf:params:imdn";

/** `from`, `to`: SIP URIs. The bytes are final: a repeat is recognised by them. */
export function makeCpim(message: Cpim): Buffer {
  const head = [
    `From: <${message.from}>`,
    `To: <${message.to}>`,
    `DateTime: ${message.dateTime}`,
    `NS: imdn <${IMDN}>`,
    `imdn.Message-ID: ${message.messageId}`,
    "imdn.Disposition-Notification: positive-delivery, negative-delivery, display",
    "",
    `Content-Type: ${message.contentType}`,
    `Content-Length: ${message.body.length}`,
    "",
    "",
  ].join("\r\n");
  return Buffer.concat([Buffer.from(head, "utf8"), message.body]);
}

/** @throws SuiteError syntax */
export function parseCpim(bytes: Buffer): Cpim {
  const outerEnd = bytes.indexOf("\r\n\r\n");
  if (outerEnd < 0 || outerEnd > MAX_HEADER) throw bad("header");
  const innerEnd = bytes.indexOf("\r\n\r\n", outerEnd + 4);
  if (innerEnd < 0 || innerEnd - outerEnd > MAX_HEADER) throw bad("content header");
  const outer = fields(bytes.subarray(0, outerEnd));
  const inner = fields(bytes.subarray(outerEnd + 4, innerEnd));
  const prefix =
    [...outer]
      .find(([name, value]) => name === "NS" && value.includes(`<${IMDN}>`))?.[1]
      .split("<")[0]
      ?.trim() ?? "imdn";
  const one = (name: string) => outer.find(([known]) => known === name)?.[1];
  const from = address(one("From"));
  const to = address(one("To"));
  if (from === undefined || to === undefined) throw bad("From and To");
  return {
    from,
    to,
    dateTime: one("DateTime") ?? "",
    messageId: one(`${prefix}.Message-ID`) ?? "",
    contentType: inner.find(([name]) => name.toLowerCase() === "content-type")?.[1] ?? "text/plain",
    body: bytes.subarray(innerEnd + 4),
  };
}

/** CPIM header names are case sensitive (§3.1). */
function fields(bytes: Buffer): [string, string][] {
  return bytes
    .toString("utf8")
    .split("\r\n")
    .map((line): [string, string] => {
      const colon = line.indexOf(":");
      if (colon <= 0) throw bad("field");
      return [line.slice(0, colon), line.slice(colon + 1).trim()];
    });
}

function address(value: string | undefined): string | undefined {
  return value === undefined ? undefined : /<([^<>]+)>[ \t]*$/.exec(value)?.[1];
}

function bad(why: string): SuiteError {
  return new SuiteError("syntax", "not a CPIM message", { fault: "peer", details: { why } });
}
