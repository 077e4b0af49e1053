import fc from "fast-check";
import { expect, test } from "vitest";
import { parseIdentity } from "../../src/pki/identity.ts";
import { SuiteError } from "../../src/pki/suite-error.ts";
import { parseCpim } from "../../src/sip/cpim.ts";
import { type Framed, parseDatagram, type SipHeader, StreamFramer } from "../../src/sip/grammar.ts";
import { parseNameAddr, parseVia } from "../../src/sip/headers.ts";
import { responseTo, serialise } from "../../src/sip/message.ts";
import { addressOfRecord, parseSipUri, sipUriOf } from "../../src/sip/uri.ts";

const good = [
  "MESSAGE sip:bob@b.test SIP/2.0",
  "Via: SIP/2.0/TCP h:1;branch=z9hG4bK1",
  'From: "A, \\"B\\"" <sip:a@a.test>;tag=1',
  "To: <sip:bob@b.test>",
  "Call-ID: c",
  "CSeq: 1 MESSAGE",
  "Content-Length: 5",
  "",
  "hello",
].join("\r\n");

/** What nearly is SIP: the good message with pieces cut out, doubled and put in. */
const nearly = fc
  .array(
    fc.tuple(
      fc.nat(good.length),
      fc.nat(12),
      fc.oneof(
        fc.constantFrom(
          "\r\n",
          "\r",
          "\n",
          ":",
          ";",
          ",",
          '"',
          "<",
          ">",
          "\0",
          " ",
          "\t",
          "=",
          "\\",
          "%",
          "9",
          "SIP/2.0 200 OK\r\n",
          "Content-Length: 3\r\n",
          "l: 99999999999\r\n",
          "\r\n\r\n",
          good,
        ),
        fc.string({ unit: "binary", maxLength: 5 }),
      ),
    ),
    { maxLength: 6 },
  )
  .map((edits) => edits.reduce((text, [at, cut, put]) => text.slice(0, at) + put + text.slice(at + cut), good))
  .map((text) => Buffer.from(text, "utf8"));
const cuts = fc.array(fc.integer({ min: 1, max: 40 }), { minLength: 1, maxLength: 10 });

function fed(bytes: Buffer, sizes: readonly number[]): Framed[] {
  const framer = new StreamFramer();
  const framed: Framed[] = [];
  for (let at = 0, n = 0; at < bytes.length; n += 1) {
    const size = sizes[n % sizes.length] ?? 1;
    framed.push(...framer.push(bytes.subarray(at, at + size)));
    at += size;
  }
  return framed;
}

test("any bytes, cut anywhere, give the same messages as whole, and never an exception", () => {
  fc.assert(
    fc.property(nearly, cuts, (bytes, sizes) => {
      const whole = fed(bytes, [Math.max(1, bytes.length)]);
      expect(fed(bytes, sizes)).toEqual(whole);
      expect(fed(bytes, [1])).toEqual(whole);
      parseDatagram(bytes);
    }),
  );
});

test("whatever is taken or refused with fields can be answered, and the answer is well formed enough to be one message", () => {
  fc.assert(
    fc.property(nearly, (bytes) => {
      for (const framed of [...fed(bytes, [bytes.length || 1]), parseDatagram(bytes)]) {
        const headers: readonly SipHeader[] | undefined =
          framed.kind === "message" && framed.message.kind === "request"
            ? framed.message.headers
            : framed.kind === "refused"
              ? framed.headers
              : undefined;
        if (headers === undefined || headers.length === 0) continue;
        const answers = fed(serialise(responseTo({ headers }, 400, "Bad Request", "t")), [1_000_000]);
        expect(answers).toHaveLength(1);
        expect(answers[0]?.kind === "refused" && answers[0].fatal).toBe(false);
      }
    }),
  );
});

test("no text makes a header, URI or CPIM parser throw anything but its own error", () => {
  const part = fc.constantFrom(
    "sip:",
    "sips:",
    "a",
    "@",
    "b.test",
    ";",
    "=",
    "?",
    "%41",
    "%zz",
    "[::1]",
    ":5060",
    "<",
    ">",
    '"',
    "\\",
    ",",
    " ",
    "SIP/2.0/UDP ",
    "branch",
    "\r\n",
    "From: <x>",
    "é",
  );
  fc.assert(
    fc.property(
      fc.oneof(
        fc.array(part, { maxLength: 12 }).map((parts) => parts.join("")),
        fc.string({ unit: "binary" }),
      ),
      (text) => {
        for (const parse of [parseSipUri, parseNameAddr, parseVia, (one: string) => parseCpim(Buffer.from(one))]) {
          try {
            parse(text);
          } catch (error) {
            expect(error).toBeInstanceOf(SuiteError);
          }
        }
      },
    ),
    { numRuns: 1_000 },
  );
});

test("every identity comes back from its URI", () => {
  const local = fc.string({
    unit: fc.constantFrom(...Array.from("abz09!#$%&'*+/=?^_`{|}~-éß漢")),
    minLength: 1,
    maxLength: 12,
  });
  fc.assert(
    fc.property(local, (user) => {
      const identity = parseIdentity(`${user}@alpha.test`);
      const uri = parseSipUri(sipUriOf(identity));
      expect(parseIdentity(addressOfRecord(uri) ?? "")).toBe(identity);
      expect(uri.parameters.size).toBe(0);
      expect(uri.headers).toBeUndefined();
    }),
  );
});
