import { afterEach, describe, expect, test } from "vitest";
import { type LocalListener, listenLocal } from "../../src/peertls-core/loopback.ts";
import { silentLog } from "../../src/pki/log.ts";
import { strictLines } from "../../src/smtp/grammar.ts";
import { Refusal } from "../../src/smtp/reply.ts";
import {
  SESSION_LIMITS,
  type SessionLimits,
  type SmtpHandlers,
  SmtpService,
  type Transaction,
} from "../../src/smtp/session.ts";
import { Talk } from "./talk.ts";

const listeners: { listener: LocalListener; service: SmtpService }[] = [];

afterEach(async () => {
  for (const { listener, service } of listeners.splice(0)) {
    await service.stop();
    await listener.close();
  }
});

interface Taken {
  mail: Transaction;
  text: string;
}

/** A service on a plain port that takes every mail, its lines strictly. */
async function start(o: { limits?: Partial<SessionLimits>; handlers?: Partial<SmtpHandlers> } = {}) {
  const taken: Taken[] = [];
  const failures: unknown[] = [];
  const service = new SmtpService({
    name: "example.test",
    security: { mode: "tls" },
    auth: false,
    limits: { ...SESSION_LIMITS, maxBytes: 75_497_472, commandBytes: 2_048, ...o.limits },
    log: silentLog,
  });
  const handlers: SmtpHandlers = {
    mail: async () => undefined,
    rcpt: async () => undefined,
    async data(mail, bytes) {
      const pieces: Uint8Array[] = [];
      try {
        for await (const piece of strictLines(bytes)) pieces.push(piece);
      } catch (error) {
        failures.push(error);
        throw error;
      }
      taken.push({ mail, text: Buffer.concat(pieces).toString() });
      return "stored";
    },
    ...o.handlers,
  };
  const written: number[] = [];
  const listener = await listenLocal({ host: "127.0.0.1", port: 0 }, (socket) => {
    service.accept(socket, "c0ffee", handlers);
    written.push(socket.bytesWritten);
  });
  listeners.push({ listener, service });
  return { port: listener.address.port, taken, failures, written, service };
}

describe("what the library does by itself is as the session needs it", () => {
  test("the greeting is on its way before accept returns: no timer is waited for", async () => {
    const { port, written } = await start();
    const talk = await Talk.tcp(port);
    expect(await talk.reply()).toBe("220 example.test ESMTP SixTalk");
    expect(written).toEqual(["220 example.test ESMTP SixTalk\r\n".length]);
  });

  test("EHLO offers what is kept, and nothing more", async () => {
    const { port } = await start();
    const talk = await Talk.tcp(port);
    await talk.reply();
    expect((await talk.say("EHLO me"))?.split("\r\n")).toEqual([
      "250-example.test",
      "250-PIPELINING",
      "250-8BITMIME",
      "250-SMTPUTF8",
      "250-ENHANCEDSTATUSCODES",
      "250 SIZE 75497472",
    ]);
  });

  test.each([
    ["NOOP", "250 2.0.0 OK"],
    ["AUTH PLAIN AGEAYg==", "500 5.5.2 Error: command not recognized"],
    ["STARTTLS", "500 5.5.2 Error: command not recognized"],
    ["XCLIENT ADDR=1.2.3.4", "500 5.5.2 Error: command not recognized"],
    ["RCPT_TO_OK", "500 5.5.2 Error: command not recognized"],
    ["MAIL FROM:<a@b.test> REQUIRETLS", "555 5.5.4 Parameter not supported"],
    ["MAIL FROM:<a@b.test> RET=HDRS", "555 5.5.4 Parameter not supported"],
    ["MAIL FROM:<ä@b.test>", "553 5.6.7 Non-ASCII address without SMTPUTF8"],
    ["MAIL FROM:<ä@b.test> SMTPUTF8", "250 2.1.0 Accepted"],
    ["MAIL FROM:<a@b.test> SIZE=75497473", "552 5.3.4 Error: message exceeds fixed maximum message size 75497472"],
    ["RCPT TO:<a@b.test>", "503 5.5.1 Error: need MAIL command"],
    ["DATA", "503 5.5.1 Error: need RCPT command"],
  ])("%s gets one reply with one enhanced code", async (command, reply) => {
    const { port } = await start();
    const talk = await Talk.tcp(port);
    await talk.reply();
    await talk.say("EHLO me");
    talk.write(Buffer.from(`${command}\r\n`));
    expect(await talk.reply()).toBe(reply);
    expect(await talk.say("QUIT")).toBe("221 2.0.0 Bye");
  });

  test("a handler's refusal has its own enhanced code, and only that", async () => {
    const { port } = await start({
      handlers: {
        mail: async () => {
          throw new Refusal(550, "5.7.1", "Not you");
        },
      },
    });
    const talk = await Talk.tcp(port);
    await talk.reply();
    await talk.say("EHLO me");
    expect(await talk.say("MAIL FROM:<a@b.test>")).toBe("550 5.7.1 Not you");
  });

  test("a mail is handed over unstuffed, with its transaction", async () => {
    const { port, taken } = await start();
    const talk = await Talk.tcp(port);
    await talk.reply();
    expect(await talk.begin("a@b.test", "C@D.test")).toMatch(/^354 /);
    talk.write("Subject: x\r\n\r\n..\r\n..dot\r\nend\r\n.\r\n");
    expect(await talk.reply()).toBe("250 2.6.0 stored");
    expect(taken).toMatchObject([
      { text: "Subject: x\r\n\r\n.\r\n.dot\r\nend\r\n", mail: { from: "a@b.test", to: ["c@d.test"] } },
    ]);
    expect(taken[0]?.mail.passage).toMatchObject({ helo: "test.example", id: "c0ffee" });
  });

  test("a mail of 100,000 lines that are dots does not keep another client waiting", async () => {
    const { port, taken } = await start();
    const [flood, other] = [await Talk.tcp(port), await Talk.tcp(port)];
    await Promise.all([flood.reply(), other.reply()]);
    await flood.begin("a@b.test", "c@d.test");
    flood.write(`${"..\r\n".repeat(100_000)}.\r\n`);
    expect(await other.say("NOOP")).toBe("250 2.0.0 OK");
    expect(taken).toEqual([]);
    expect(await flood.reply()).toBe("250 2.6.0 stored");
    expect(taken[0]?.text.length).toBe(300_000);
  });
});

describe("only CRLF.CRLF ends a mail", () => {
  const forms = ["\n.\n", "\n.\r\n", "\r\n.\n", "\r.\r", "\r.\r\n", "\r\n.\r", "\n.\r", "\r.\n"];
  const splits = [
    ["whole", (text: string) => [text]],
    ["byte by byte", (text: string) => Array.from(text)],
    [
      "cut inside the false end",
      (text: string) => [text.slice(0, text.indexOf(".") + 1), text.slice(text.indexOf(".") + 1)],
    ],
  ] as const;
  test.each(forms.flatMap((form) => splits.map(([name, cut]) => [JSON.stringify(form), name, form, cut] as const)))(
    "%s, sent %s, ends nothing and is refused",
    async (_shown, _name, form, cut) => {
      const { port, taken } = await start();
      const talk = await Talk.tcp(port);
      await talk.reply();
      await talk.begin("a@b.test", "c@d.test");
      for (const piece of cut(`one${form}MAIL FROM:<smuggled@b.test>\r\nRCPT TO:<c@d.test>\r\nDATA\r\n`)) {
        talk.write(piece);
        await new Promise(setImmediate);
      }
      talk.write("smuggled\r\n.\r\n");
      expect(await talk.reply()).toBe("554 5.5.2 Syntax error");
      expect(await talk.say("NOOP")).toBe("250 2.0.0 OK");
      expect(taken).toEqual([]);
    },
  );

  test("a NUL is refused, too", async () => {
    const { port, taken } = await start();
    const talk = await Talk.tcp(port);
    await talk.reply();
    await talk.begin("a@b.test", "c@d.test");
    talk.write("a\0b\r\n.\r\n");
    expect(await talk.reply()).toBe("554 5.5.2 Syntax error");
    expect(taken).toEqual([]);
  });
});

describe("limits", () => {
  test("an over-size mail is stopped at the limit: of 300 MB the server reads no more than it allows and a little", async () => {
    const { port, taken, failures } = await start({ limits: { maxBytes: 10_000_000 } });
    const talk = await Talk.tcp(port, { allowHalfOpen: true });
    await talk.reply();
    await talk.begin("a@b.test", "c@d.test");
    const line = Buffer.from(`${"x".repeat(65_534)}\r\n`);
    let sent = 0;
    const closed = new Promise<void>((resolve) => talk.socket.once("close", () => resolve()));
    const pump = () => {
      while (sent < 300_000_000 && !talk.socket.destroyed) {
        sent += line.length;
        if (!talk.socket.write(line)) return void talk.socket.once("drain", pump);
      }
    };
    pump();
    await closed;
    expect(talk.socket.bytesWritten).toBeLessThan(30_000_000);
    expect(failures).toMatchObject([{ code: "limit-exceeded" }]);
    expect(taken).toEqual([]);
  });

  test("whoever stops sending when told reads 552 5.3.4, then the end", async () => {
    const { port } = await start({ limits: { maxBytes: 1_000 } });
    const talk = await Talk.tcp(port);
    await talk.reply();
    await talk.begin("a@b.test", "c@d.test");
    talk.write(`${"x".repeat(1_100)}\r\n`);
    expect(await talk.reply()).toBe("552 5.3.4 Too large");
    expect(await talk.rest()).toBe("");
  });

  test("a command of 1 MB ends the connection, not the server", async () => {
    const { port } = await start();
    const talk = await Talk.tcp(port);
    await talk.reply();
    talk.write("X".repeat(1_000_000));
    expect(await talk.reply()).toMatch(/^421 /);
    await talk.rest();
    expect(await (await Talk.tcp(port)).reply()).toMatch(/^220 /);
  });

  test("a command line has the octets that are allowed, and no more", async () => {
    const { port } = await start();
    const talk = await Talk.tcp(port);
    await talk.reply();
    expect(await talk.say(`NOOP ${"x".repeat(2_043)}`)).toBe("250 2.0.0 OK");
    expect(await talk.say(`NOOP ${"x".repeat(2_044)}`)).toMatch(/^421 /);
  });

  test("a flood of commands without a mail is ended at the 51st", async () => {
    const { port } = await start();
    const talk = await Talk.tcp(port);
    await talk.reply();
    talk.write("NOOP\r\n".repeat(200_000));
    const replies: string[] = [];
    for (let reply = await talk.reply(); reply !== undefined; reply = await talk.reply()) replies.push(reply);
    expect(replies.length).toBeLessThanOrEqual(51);
    expect(replies.at(-1)).toBe("421 4.7.0 Too many commands without a mail");
  });

  test("a hundred recipients are no flood, and a mail begins the count again", async () => {
    const { port, taken } = await start();
    const talk = await Talk.tcp(port);
    await talk.reply();
    await talk.say("EHLO me");
    for (let round = 0; round < 3; round++) {
      await talk.say("MAIL FROM:<a@b.test>");
      for (let n = 0; n < 100; n++) expect(await talk.say(`RCPT TO:<r${n}@d.test>`)).toBe("250 2.1.5 Accepted");
      expect(await talk.say("RCPT TO:<one-more@d.test>")).toMatch(/^452 4\.5\.3 /);
      for (let n = 0; n < 30; n++) await talk.say("NOOP");
      await talk.say("DATA");
      talk.write("x\r\n.\r\n");
      expect(await talk.reply()).toBe("250 2.6.0 stored");
    }
    expect(taken.map(({ mail }) => mail.to.length)).toEqual([100, 100, 100]);
  });

  test("the tenth unknown command is the last", async () => {
    const { port } = await start();
    const talk = await Talk.tcp(port);
    await talk.reply();
    for (let n = 0; n < 9; n++) expect(await talk.say("WIZ")).toMatch(/^500 /);
    expect(await talk.say("KILL")).toMatch(/^421 /);
    await talk.rest();
  });

  test("a client that says nothing, and one whose mail stops coming, get 421", async () => {
    const { port, failures } = await start({ limits: { helloMs: 50, silenceMs: 50 } });
    const silent = await Talk.tcp(port);
    await silent.reply();
    expect(await silent.reply()).toBe("421 4.4.2 No EHLO came");
    const slow = await Talk.tcp(port);
    await slow.reply();
    await slow.begin("a@b.test", "c@d.test");
    slow.write("half a mail\r\n");
    expect(await slow.reply()).toBe("421 4.4.2 The mail does not come");
    expect(failures).toMatchObject([{ code: "cancelled", details: { why: "slow" } }]);
  });

  test("a mail that drips is ended when it takes longer than its size allows", async () => {
    const { port, failures } = await start({ limits: { wholeMs: 200, bytesPerSecond: 1_000_000 } });
    const talk = await Talk.tcp(port);
    await talk.reply();
    await talk.begin("a@b.test", "c@d.test");
    const drip = setInterval(() => talk.write("drop\r\n"), 20);
    expect(await talk.reply()).toBe("421 4.4.2 The mail does not come");
    clearInterval(drip);
    expect(failures).toMatchObject([{ details: { why: "slow" } }]);
  });
});

describe("the end", () => {
  test("a client that goes in the middle of a mail is told to the handler", async () => {
    const { port, failures, taken } = await start();
    const talk = await Talk.tcp(port);
    await talk.reply();
    await talk.begin("a@b.test", "c@d.test");
    talk.write("half a mail\r\n");
    talk.socket.end();
    await talk.rest();
    await expect.poll(() => failures).toMatchObject([{ code: "cancelled", details: { why: "gone" } }]);
    expect(taken).toEqual([]);
  });

  test("stopping tells idle clients 421 4.3.2 and lets a mail under way finish", async () => {
    const { port, taken, service } = await start();
    const [idle, busy] = [await Talk.tcp(port), await Talk.tcp(port)];
    await Promise.all([idle.reply(), busy.reply()]);
    await busy.begin("a@b.test", "c@d.test");
    const stopped = service.stop();
    expect(await idle.reply()).toBe("421 4.3.2 Stopping");
    busy.write("x\r\n.\r\n");
    expect(await busy.reply()).toBe("250 2.6.0 stored");
    expect(await busy.reply()).toBe("421 4.3.2 Stopping");
    await stopped;
    expect(taken).toHaveLength(1);
    expect(await (await Talk.tcp(port)).reply()).toBe("421 4.3.2 stopping");
  });
});
