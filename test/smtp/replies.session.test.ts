import fc from "fast-check";
import { expect, test } from "vitest";
import { listenLocal } from "../../src/peertls-core/loopback.ts";
import { silentLog } from "../../src/pki/log.ts";
import { strictLines } from "../../src/smtp/grammar.ts";
import { SESSION_LIMITS, SmtpService } from "../../src/smtp/session.ts";
import { bytesOf } from "../support/smime.ts";
import { Talk } from "./talk.ts";

const words = [
  "EHLO me",
  "HELO me",
  "EHLO",
  "MAIL FROM:<a@b.test>",
  "MAIL FROM:<>",
  "mail from:<a@b.test> size=5 body=8bitmime",
  "MAIL FROM:<a@b.test> SIZE=x",
  "MAIL FROM:a@b.test",
  "RCPT TO:<c@d.test>",
  "RCPT TO:<@relay.test:c@d.test>",
  "RCPT TO:<>",
  "DATA",
  "DATA now",
  "text",
  ".",
  "..",
  "\0",
  "RSET",
  "NOOP",
  "VRFY x",
  "HELP",
  "AUTH PLAIN =",
  "STARTTLS",
  "DATA_OK",
  "MESSAGE_TOO_BIG",
  "__proto__",
  "constructor",
  "handler_MAIL",
  "GET / HTTP/1.1",
  "",
];

test("whatever is said, every reply is one of RFC 5321, has the one enhanced code that is due, and the session ends when told", async () => {
  let open = 0;
  const service = new SmtpService({
    name: "example.test",
    security: { mode: "tls" },
    auth: false,
    limits: { ...SESSION_LIMITS, maxBytes: 1_000, commandBytes: 2_048, commands: 20 },
    log: silentLog,
  });
  const handlers = {
    mail: async () => undefined,
    rcpt: async () => undefined,
    data: async (_mail: unknown, bytes: AsyncIterable<Uint8Array>) =>
      `stored ${(await bytesOf(strictLines(bytes))).length}`,
  };
  const listener = await listenLocal({ host: "127.0.0.1", port: 0 }, (socket) => {
    open += 1;
    socket.once("close", () => {
      open -= 1;
    });
    service.accept(socket, "fuzz", handlers);
  });
  const lines = fc.array(fc.oneof(fc.constantFrom(...words), fc.string({ unit: "binary", maxLength: 20 })), {
    maxLength: 30,
  });
  const ends = fc.constantFrom("\r\n", "\r\n", "\r\n", "\n", "\r");
  await fc.assert(
    fc.asyncProperty(lines, ends, fc.integer({ min: 1, max: 40 }), async (said, end, size) => {
      const talk = await Talk.tcp(listener.address.port);
      const bytes = Buffer.from(said.map((line) => line + end).join(""), "latin1");
      for (let at = 0; at < bytes.length; at += size) talk.write(bytes.subarray(at, at + size));
      talk.write("\r\n.\r\nQUIT\r\n");
      talk.socket.end();
      const text = await talk.rest();
      expect(text).toMatch(/^220 example\.test ESMTP SixTalk\r\n/);
      for (const line of text.split("\r\n").slice(1, -1)) {
        expect(line).toMatch(/^[2-5]\d\d[ -][\x20-\x7e]*$/);
        const enhanced = /^(?<code>\d)\d\d (?<of>\d)\.\d{1,3}\.\d{1,3} (?!\d\.\d)/.exec(line)?.groups;
        if (enhanced !== undefined) expect(enhanced["of"]).toBe(enhanced["code"]);
        else
          expect(line).toMatch(
            /^250[ -](?:example\.test|PIPELINING|8BITMIME|SMTPUTF8|ENHANCED.*|SIZE 1000)$|^354 |^501 Error: [Ss]yntax: |^501 Error: Bad hostname/,
          );
      }
    }),
    { numRuns: 150 },
  );
  await expect.poll(() => open).toBe(0);
  await service.stop();
  await listener.close();
});
