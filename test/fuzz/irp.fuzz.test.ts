import fc from "fast-check";
import { expect, test } from "vitest";
import { FrameReader, frame } from "../../src/irp/frame.ts";
import { type Reply, type Request, readReply, readRequest, writeReply, writeRequest } from "../../src/irp/messages.ts";
import { SuiteError } from "../../src/pki/suite-error.ts";

/** Text that XML can carry: no controls but line feed and tab. */
const text = fc
  .string({ unit: "grapheme", maxLength: 20 })
  .filter((one) => !/[\0-\x08\x0b-\x1f\ufffe\uffff]|xmlns/.test(one) && one.isWellFormed());
const attribute = text.filter((one) => !/[\t\n]/.test(one)); // XML makes spaces of them
const der = fc.uint8Array({ minLength: 1, maxLength: 50 }).map((bytes) => Buffer.from(bytes));
const kind = fc.constantFrom("auth" as const, "encryption" as const);
const request: fc.Arbitrary<Request> = fc.oneof(
  attribute.map((domain) => ({ type: "hello" as const, domain })),
  fc.tuple(text, text).map(([user, password]) => ({
    type: "auth" as const,
    method: "upa" as const,
    user: user.trim(),
    secret: { password },
  })),
  fc.tuple(kind, attribute, der).map(([of, label, bytes]) => ({ type: "csr" as const, kind: of, label, der: bytes })),
);
const reply: fc.Arbitrary<Reply> = fc.oneof(
  fc
    .tuple(kind, fc.nat(), fc.nat(), fc.array(der, { maxLength: 3 }))
    .map(([of, notAfter, renewAfter, certificates]) => ({
      type: "cert" as const,
      kind: of,
      serial: "5f",
      notAfter,
      renewAfter,
      status: "good" as const,
      certificates,
    })),
  text.map((why) => ({ type: "err" as const, code: "policy" as const, text: why })),
);

test("every message is read as it was written, through frames cut anywhere", () => {
  fc.assert(
    fc.property(
      fc.array(request, { minLength: 1, maxLength: 3 }),
      reply,
      fc.integer({ min: 1, max: 50 }),
      (requests, answer, size) => {
        const bytes = Buffer.concat(requests.map((one, index) => frame(writeRequest(index + 1, one))));
        const reader = new FrameReader();
        const frames: Buffer[] = [];
        for (let at = 0; at < bytes.length; at += size) frames.push(...reader.push(bytes.subarray(at, at + size)));
        expect(frames.map((one) => readRequest(one).request)).toEqual(requests);
        expect(readReply(Buffer.from(writeReply(1, answer))).reply).toEqual(answer);
      },
    ),
  );
});

test("no bytes make the reader throw anything but its own error", () => {
  const piece = fc.constantFrom(
    "<irp",
    ' v="1"',
    ' id="1"',
    ">",
    "/>",
    "</irp>",
    "<auth",
    ' method="upa"',
    "<user>",
    "</user>",
    "&lt;",
    "&#x41;",
    "&",
    "<",
    "]]>",
    "a",
    "é",
    "\n",
    "\r",
    "<!",
    "<?",
    "\ud800",
  );
  fc.assert(
    fc.property(
      fc.oneof(
        fc.array(piece, { maxLength: 15 }).map((parts) => Buffer.from(parts.join(""))),
        fc.uint8Array().map((bytes) => Buffer.from(bytes)),
      ),
      (bytes) => {
        for (const read of [readRequest, readReply]) {
          try {
            read(bytes);
          } catch (error) {
            expect(error).toBeInstanceOf(SuiteError);
            expect((error as SuiteError).code).toBe("syntax");
          }
        }
      },
    ),
    { numRuns: 1_000 },
  );
});
