import { spawn } from "node:child_process";
import { randomBytes } from "node:crypto";
import { once } from "node:events";
import { writeFileSync } from "node:fs";
import { connect } from "node:net";
import { join } from "node:path";
import { setImmediate as turn } from "node:timers/promises";
import fc from "fast-check";
import { afterAll, beforeAll, describe, expect, test } from "vitest";
import { within } from "../delivery/party.ts";
import { temporaryFolder } from "../support/openssl.ts";
import { bytesOf } from "../support/smime.ts";
import { type FileNode, FileWorld, PASSWORD, pieces, startFileNode } from "./file-node.ts";
import { fetched, put, RawTls, Talk } from "./talk.ts";

const folder = temporaryFolder();
const world = new FileWorld();
let alice: FileNode;
let bob: FileNode;

beforeAll(async () => {
  alice = await startFileNode(world, world.person("alice"), folder.path);
  bob = await startFileNode(world, world.person("bob"), folder.path);
});
afterAll(async () => {
  await alice[Symbol.asyncDispose]();
  await bob[Symbol.asyncDispose]();
  folder[Symbol.dispose]();
});

const owner = () => Talk.owner(alice.port, PASSWORD);
const sent = async () => (await alice.store.items({ box: "sent", kind: "file", limit: 1_000 })).length;

describe("before TLS", () => {
  test("no name and no password is taken, and nothing else is done", async () => {
    const talk = await Talk.local(alice.port);
    expect((await talk.ask("USER alice", 530)).text).toMatch(/AUTH TLS/);
    await talk.ask("PASS x", 503);
    await talk.ask("PBSZ 0", 503);
    await talk.ask("PROT P", 503);
    await talk.ask("EPSV", 530);
    await talk.ask("AUTH GSSAPI", 504);
    expect((await talk.ask("FEAT", 211)).text).toMatch(/\r\n AUTH TLS;TLS-C\r\n/);
    await talk.ask("SYST", 215);
    await talk.ask("NOOP", 421); // the ninth command
    await talk.end();
  });

  test("what is said in one segment with AUTH TLS is not run, and ends the connection", async () => {
    for (const behind of ["NOOP\r\n", "N", "\r\n"]) {
      const talk = await Talk.local(alice.port);
      talk.stream.write(`AUTH TLS\r\n${behind}`);
      expect(await talk.end()).toBe("");
    }
  });

  test("what is said in clear behind 234 is not run either", async () => {
    const talk = await Talk.local(alice.port);
    await talk.ask("AUTH TLS", 234);
    talk.say("NOOP");
    expect(await talk.end()).not.toMatch(/200/);
  });

  test("a hello right behind 234 is never lost", async () => {
    for (let time = 0; time < 50; time += 1) {
      const talk = await Talk.local(alice.port);
      await talk.secure();
      await talk.ask("NOOP", 200);
      talk.stream.destroy();
    }
  });
});

describe("login", () => {
  test("a line in two segments is one command, also byte by byte", async () => {
    const talk = await Talk.local(alice.port);
    await talk.secure();
    talk.stream.write("USER al");
    await turn();
    talk.stream.write("ice\r\n");
    await talk.answer(331);
    for (const character of `PASS ${PASSWORD}\r\n`) {
      talk.stream.write(character);
      await turn();
    }
    await talk.answer(230);
    await talk.ask(`PASS ${PASSWORD}`, 503);
    talk.stream.destroy();
  });

  test("the third wrong password ends the connection; after ten the right one is not taken either", async () => {
    await using other = await startFileNode(world, world.person("dora"), folder.path);
    for (let time = 0; time < 4; time += 1) {
      const talk = await Talk.local(other.port);
      await talk.secure();
      await talk.ask("PASS x", 503);
      for (let attempt = 0; attempt < 3; attempt += 1) {
        await talk.ask("USER dora", 331);
        expect((await talk.ask("PASS wrong", 530)).text).toBe("Authentication failed.");
      }
      await talk.end();
    }
    const talk = await Talk.local(other.port);
    await talk.secure();
    await talk.ask("USER dora", 331);
    await talk.ask(`PASS ${PASSWORD}`, 530);
    talk.stream.destroy();
  });

  test("USER again logs out", async () => {
    const talk = await owner();
    await talk.ask("USER alice", 331);
    await talk.ask("PWD", 530);
    talk.stream.destroy();
  });
});

describe("the control connection", () => {
  test("a line of 20 MB gets 500 and the end, and is never kept", async () => {
    const talk = await owner();
    const before = process.memoryUsage().arrayBuffers;
    let most = 0;
    const block = Buffer.alloc(65_536, "x");
    for (let block20 = 0; block20 < 320 && !talk.stream.destroyed; block20 += 1) {
      talk.stream.write(block);
      await turn();
      most = Math.max(most, process.memoryUsage().arrayBuffers - before);
    }
    await talk.answer(500);
    await talk.end();
    expect(most).toBeLessThan(20_000_000);
  });

  test("thousands of commands in one segment are answered in order", async () => {
    const talk = await owner();
    talk.stream.write(Array.from({ length: 3_000 }, (_one, n) => `HELP X${n}\r\nPWD\r\n`).join(""));
    for (let n = 0; n < 3_000; n += 1) {
      await talk.answer(501);
      await talk.answer(257);
    }
    talk.stream.destroy();
  });

  test("whoever does not read the replies is not read from", async () => {
    const talk = await owner();
    talk.stream.pause();
    let said = 0;
    const most = 200_000_000;
    const block = Buffer.from("HELP\r\n".repeat(2_000));
    const stuck = async () => {
      for (let quiet = 0; quiet < 200; quiet += 1) {
        if (!talk.stream.writableNeedDrain) return false;
        await turn();
      }
      return true;
    };
    while (said < most && !(await stuck())) {
      talk.stream.write(block);
      said += block.length;
    }
    expect(said).toBeLessThan(most);
    const before = process.memoryUsage().arrayBuffers;
    expect(before).toBeLessThan(100_000_000);
    talk.stream.resume();
    for (let n = 0; n < 100; n += 1) await talk.answer(214);
    talk.stream.destroy();
  });

  test.each([
    ["", 500],
    ["FOO", 500],
    ["CWD /inbox/../../..", 250],
    ["CWD //peers//./bob@alpha.test/", 250],
    ["CWD /etc", 550],
    ["CWD a\\b", 501],
    ["PWD x", 501],
    ["CDUP", 250],
    ["CWD", 250],
    ["XPWD", 257],
    ["TYPE E", 504],
    ["TYPE L8", 200],
    ["STRU R", 504],
    ["STRU X", 501],
    ["MODE B", 504],
    ["MODE S", 200],
    ["REST x", 501],
    ["OPTS UTF8 ON", 200],
    ["OPTS MLST size;type;nothing", 200],
    ["OPTS X", 501],
    ["HELP", 214],
    ["HELP STOR", 214],
    ["HELP NOTHING", 501],
    ["STAT /peers", 213],
    ["STAT *", 550],
    ["PORT 127,0,0,1,4,1", 502],
    ["EPSV 2", 522],
    ["EPSV ALL", 200],
    ["ABOR", 225],
    ["PROT X", 504],
    ["RNTO x", 503],
    ["RNFR /inbox", 550],
    ["MKD /peers/x", 550],
    ["SIZE /inbox", 550],
    ["RETR /inbox", 550],
    ["RETR /inbox/bob@alpha.test/x", 550],
    ["STOR /inbox/x", 550],
    ["STOR /peers/x", 550],
    ["STOR /peers/nobody@alpha.test/x", 550],
    ["STOR /peers/bob@alpha.test/.status", 550],
    ["LIST /nothing", 550],
    ["MLSD /inbox", 425],
  ])("%j is answered with %d", async (line, code) => {
    const talk = await owner();
    await talk.ask(line, code);
    await talk.ask("QUIT", 221);
    await talk.end();
  });

  test("a name, a path and a depth beyond what there can be are refused", async () => {
    const talk = await owner();
    await talk.ask(`CWD ${"x".repeat(256)}`, 501);
    await talk.ask(`CWD ${"x/".repeat(2_100)}`, 501);
    await talk.ask(`CWD ${"x/".repeat(70)}`, 550);
    talk.stream.destroy();
  });

  test("what is not UTF-8 gets 501, and names are kept as they are", async () => {
    const talk = await owner();
    talk.stream.write(Buffer.from([...Buffer.from("CWD "), 0xc3, 0x28, 0x0d, 0x0a]));
    await talk.answer(501);
    for (const name of [' -x "quoted" ', "e\u0301te\u0301", "-l"]) {
      await put(talk, `/peers/bob@alpha.test/${name}`, name);
    }
    const names = (await fetched(talk, "NLST /peers/bob@alpha.test")).split("\r\n");
    expect(names).toContain("\u00e9t\u00e9");
    expect(names).toContain("-l");
    expect((await talk.ask('CWD /peers/"', 550)).text).toBe("No such file or directory.");
    talk.stream.destroy();
  });

  test("after EPSV ALL there is no PASV", async () => {
    const talk = await owner();
    await talk.ask("PASV", 227);
    await talk.ask("EPSV ALL", 200);
    await talk.ask("PASV", 501);
    await talk.ask("EPSV", 229);
    talk.stream.destroy();
  });
});

test("the 257th connection is closed at once, and there is room again when one ends", async () => {
  await using other = await startFileNode(world, world.person("emil"), folder.path);
  const talks: Talk[] = [];
  for (let count = 0; count < 256; count += 1) talks.push(await Talk.local(other.port));
  await expect(Talk.local(other.port)).rejects.toThrow(/ended/);
  talks.pop()?.stream.destroy();
  await talks[0]?.ask("NOOP", 200);
  await (await Talk.local(other.port)).ask("QUIT", 221);
  for (const talk of talks) talk.stream.destroy();
});

describe("data connections", () => {
  test("300 EPSV leave one port open", async () => {
    const talk = await owner();
    const ports: number[] = [];
    for (let time = 0; time < 300; time += 1) ports.push(await talk.passive());
    const last = ports.pop() ?? 0;
    for (const port of new Set(ports)) {
      if (port === last) continue;
      const [error] = (await once(connect({ host: "127.0.0.1", port }), "error")) as [NodeJS.ErrnoException];
      expect(error.code).toBe("ECONNREFUSED");
    }
    talk.stream.destroy();
  });

  test("another address is reset, the port stays for the right one and is closed behind it", async () => {
    const talk = await owner();
    const port = await talk.passive();
    const foreign = connect({ host: "127.0.0.1", port, localAddress: "127.0.0.9" });
    await once(foreign, "error");
    const data = await RawTls.open({ host: "127.0.0.1", port }, {});
    const [error] = (await once(connect({ host: "127.0.0.1", port }), "error")) as [NodeJS.ErrnoException];
    expect(error.code).toBe("ECONNREFUSED");
    await talk.ask("LIST", 150);
    await bytesOf(data.tls);
    await talk.answer(226);
    talk.stream.destroy();
  });

  test("one that waits is closed by the next EPSV, by ABOR, and at the end of the session", async () => {
    const talk = await owner();
    for (const ending of ["EPSV", "ABOR", "QUIT"]) {
      const port = await talk.passive();
      const secured = await RawTls.open({ host: "127.0.0.1", port }, {});
      const silent = connect({ host: "127.0.0.1", port: await talk.passive() });
      const ended = new Promise<void>((resolve) => {
        if (secured.raw.readableEnded || secured.raw.destroyed) resolve();
        else secured.raw.once("end", resolve).once("close", resolve);
      });
      await within(ended, "the end of the first");
      await once(silent, "connect");
      const closed = new Promise((resolve) => silent.once("close", resolve));
      silent.on("error", () => undefined).resume();
      await talk.ask(ending);
      await within(closed, `what is still silent to close by ${ending}`);
      if (ending === "ABOR") await talk.ask("LIST", 425);
    }
    await talk.end();
  });

  test("what is no TLS, or goes away before it, gets 425", async () => {
    const talk = await owner();
    for (const visit of ["GET / HTTP/1.0\r\n\r\n", undefined]) {
      const raw = connect({ host: "127.0.0.1", port: await talk.passive() });
      raw.on("error", () => undefined);
      await once(raw, "connect");
      await talk.ask("LIST", 150);
      if (visit === undefined) raw.destroy();
      else raw.write(visit);
      await talk.answer(425);
    }
    talk.stream.destroy();
  });
});

describe("an upload that does not come to its end is not accepted", () => {
  const cuts: [string, (data: RawTls, talk: Talk) => void, number | undefined][] = [
    ["a FIN without close_notify", (data) => data.cut(), 426],
    ["a reset", (data) => data.reset(), 426],
    ["the end of the control connection", (_data, talk) => talk.stream.destroy(), undefined],
  ];
  test.each(cases(cuts))("%s", async (_what, cut, code) => {
    const before = await sent();
    const talk = await owner();
    const data = await talk.data();
    await talk.ask("STOR /peers/bob@alpha.test/cut.bin", 150);
    await data.write(randomBytes(300_000));
    cut(data, talk);
    if (code !== undefined) await talk.answer(code);
    else await within(new Promise((resolve) => data.raw.once("close", resolve)), "the end of the data connection");
    expect(await sent()).toBe(before);
    talk.stream.destroy();
  });

  test.each([
    ["ABOR", Buffer.from("ABOR\r\n")],
    ["ABOR behind Telnet IP and Synch", Buffer.from([0xff, 0xf4, 0xff, 0xf2, ...Buffer.from("ABOR\r\n")])],
  ])("%s: 426 and 226 within 100 ms, and the session goes on", async (_name, line) => {
    const before = await sent();
    const talk = await owner();
    const data = await talk.data();
    await talk.ask("STOR /peers/bob@alpha.test/abort.bin", 150);
    await data.write(randomBytes(300_000));
    const begun = performance.now();
    talk.stream.write(line);
    await talk.answer(426);
    await talk.answer(226);
    expect(performance.now() - begun).toBeLessThan(100);
    expect(await sent()).toBe(before);
    await put(talk, `/peers/bob@alpha.test/after ${line.length}`, "x");
    talk.stream.destroy();
  });

  test("a curl that is killed", async () => {
    const before = await sent();
    const file = join(folder.path, "killed.bin");
    writeFileSync(file, randomBytes(5_000_000));
    const target = `ftp://localhost:${alice.port}/peers/bob@alpha.test/`;
    const how = [
      "-k",
      "-sS",
      "-v",
      "--ssl-reqd",
      "--limit-rate",
      "200k",
      "-u",
      `alice:${PASSWORD}`,
      "-T",
      file,
      target,
    ];
    const curl = spawn("curl", how, { stdio: ["ignore", "ignore", "pipe"] });
    let output = "";
    await within(
      new Promise<void>((resolve) =>
        curl.stderr.on("data", (chunk: Buffer) => {
          output += chunk.toString("latin1");
          if (output.includes("< 150 ")) resolve();
        }),
      ),
      "150",
    );
    curl.kill("SIGKILL");
    await once(curl, "close");
    const talk = await owner();
    await talk.ask("NOOP", 200);
    expect(await sent()).toBe(before);
    talk.stream.destroy();
  });

  test("QUIT in the middle: 221 at once, the upload's reply, the end", async () => {
    const talk = await owner();
    const data = await talk.data();
    await talk.ask("STOR /peers/bob@alpha.test/quit.bin", 150);
    await data.write(randomBytes(100_000));
    talk.say("NLST");
    await talk.ask("QUIT", 221);
    data.tls.end();
    await talk.answer(226);
    expect(await talk.end()).toBe("");
  });
});

test("a download that is aborted, or that nobody takes any more, ends; the session goes on", async () => {
  const item = await bob.ftps.send({
    to: [alice.person.identity],
    name: "big.bin",
    source: pieces(randomBytes(9_000_000)),
  });
  expect(await bob.outbox.settled(item, AbortSignal.timeout(10_000))).toBe("delivered");
  const talk = await owner();
  for (const how of ["ABOR", "reset"]) {
    const data = await talk.data();
    await talk.ask("RETR /inbox/bob@alpha.test/big.bin", 150);
    await once(data.tls, "readable");
    if (how === "reset") data.reset();
    else talk.say("ABOR");
    await talk.answer(426);
    if (how === "ABOR") await talk.answer(226);
    data.raw.destroy();
  }
  await talk.ask("NOOP", 200);
  talk.stream.destroy();
});

test("a stop waits for the upload that is under way, and says 421 to the idle", async () => {
  const other = await startFileNode(world, world.person("frida"), folder.path);
  const login = async () => {
    const talk = await Talk.local(other.port);
    await talk.secure();
    await talk.ask("USER frida", 331);
    await talk.ask(`PASS ${PASSWORD}`, 230);
    return talk;
  };
  const [busy, idle] = [await login(), await login()];
  for (const line of ["PBSZ 0", "PROT P", "TYPE I"]) await busy.ask(line, 200);
  const data = await busy.data();
  await busy.ask("STOR /peers/bob@alpha.test/last.bin", 150);
  await data.write(randomBytes(100_000));
  const stopped = other.ftps.stop();
  await idle.answer(421);
  await idle.end();
  await expect(Talk.local(other.port)).rejects.toThrow();
  data.tls.end(randomBytes(100_000));
  await busy.answer(226);
  await busy.end();
  await stopped;
  expect((await other.store.items({ box: "sent", kind: "file" }))[0]?.size).toBeGreaterThan(200_000);
  await other[Symbol.asyncDispose]();
});

test("whatever lines come, each gets one reply that RFC 959 knows", async () => {
  const verbs = [
    "CWD",
    "PWD",
    "TYPE",
    "STRU",
    "MODE",
    "REST",
    "ALLO",
    "OPTS",
    "HELP",
    "STAT",
    "MLST",
    "SIZE",
    "MDTM",
    "RETR",
  ];
  const verb = fc.constantFrom(
    ...verbs,
    "STOR",
    "DELE",
    "LIST",
    "NLST",
    "MLSD",
    "PROT",
    "PBSZ",
    "ABOR",
    "PORT",
    "RNTO",
    "FEAT",
    "X",
  );
  const path = fc.constantFrom(
    "/",
    "..",
    "inbox",
    "/peers/bob@alpha.test",
    "/peers/bob@alpha.test/x",
    "I",
    "A",
    "5",
    "P",
    "UTF8 ON",
  );
  const argument = fc.oneof(fc.constant(""), path, fc.string({ unit: "binary", maxLength: 20 }));
  const line = fc.tuple(verb, argument).map(([name, rest]) => `${name} ${rest.toWellFormed().replace(/[\r\n]/g, "")}`);
  const talk = await owner();
  await fc.assert(
    fc.asyncProperty(fc.array(line, { minLength: 1, maxLength: 10 }), async (lines) => {
      talk.stream.write(lines.map((one) => `${one}\r\n`).join(""));
      for (const _ of lines) expect((await talk.answer()).code).toSatisfy((code: number) => code >= 200 && code < 560);
      await talk.ask("NOOP", 200);
    }),
  );
  talk.stream.destroy();
});

/** Rows of a table whose tests take what the title shows. */
function cases<T extends unknown[]>(rows: T[]): T[] {
  return rows;
}
