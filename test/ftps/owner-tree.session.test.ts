import { afterAll, beforeAll, describe, expect, test } from "vitest";
import { SuiteError } from "../../src/pki/suite-error.ts";
import { temporaryFolder } from "../support/openssl.ts";
import { type FileNode, FileWorld, PASSWORD, pieces, startFileNode } from "./file-node.ts";
import { fetched, put, Talk } from "./talk.ts";

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

test("what came is listed, measured and read from any position; a name that is taken gets a number", async () => {
  for (const text of ["first", "the second"]) {
    const item = await bob.ftps.send({
      to: [alice.person.identity],
      name: "note.txt",
      source: pieces(Buffer.from(text)),
    });
    await bob.outbox.settled(item, AbortSignal.timeout(10_000));
  }
  const talk = await owner();
  await talk.ask("CWD /inbox/bob@alpha.test", 250);
  expect((await talk.ask("PWD", 257)).text).toBe('"/inbox/bob@alpha.test" is the current directory.');
  expect((await fetched(talk, "NLST")).split("\r\n")).toEqual(expect.arrayContaining(["note.txt", "note (2).txt"]));
  expect(await fetched(talk, "LIST -la")).toMatch(
    /^-rw------- 1 owner group +10 \w{3} [ \d]\d \d\d:\d\d note \(2\)\.txt\r$/m,
  );
  expect(await fetched(talk, "MLSD")).toMatch(
    /^type=file;perm=r;size=5;modify=\d{14};unique=\w+;x\.state=new; note\.txt\r$/m,
  );
  expect((await talk.ask("SIZE note.txt", 213)).text).toBe("5");
  expect((await talk.ask("MDTM note.txt", 213)).text).toMatch(/^\d{14}$/);
  expect(await fetched(talk, "RETR note (2).txt")).toBe("the second");
  await talk.ask("REST 4", 350);
  expect(await fetched(talk, "RETR note (2).txt")).toBe("second");
  await talk.ask("REST 11", 350);
  expect((await talk.ask("RETR note (2).txt", 554)).text).toBe("REST position (11) > file size (10).");
  expect(await fetched(talk, "RETR note (2).txt")).toBe("the second");
  expect((await talk.ask("MLST note (2).txt", 250)).text).toMatch(
    /x\.state=seen; \/inbox\/bob@alpha\.test\/note \(2\)\.txt/,
  );
  await talk.ask("OPTS MLST size;", 200);
  expect((await talk.ask("MLST note.txt", 250)).text).toMatch(/\r\n size=5; /);
  await talk.ask("DELE note.txt", 550);
  await talk.ask("TYPE A", 200);
  await talk.ask("SIZE note.txt", 550);
  talk.stream.destroy();
});

test("TYPE A makes line ends CRLF on the way out and LF on the way in", async () => {
  const talk = await owner();
  await talk.ask("TYPE A", 200);
  await put(talk, "/peers/bob@alpha.test/lines.txt", "one\r\ntwo\r\nthree");
  const [item] = await alice.store.items({ box: "sent", kind: "file", limit: 1 });
  await alice.outbox.settled(item?.id ?? ("" as never), AbortSignal.timeout(10_000));
  const his = await Talk.owner(bob.port, PASSWORD).catch(() => undefined);
  expect(his).toBeUndefined(); // alice's name does not open bob's door
  const [stored] = await bob.store.items({ box: "inbox", kind: "file", limit: 1 });
  expect((await bob.store.bytes(stored?.content ?? { digest: "", size: 0 })).toString()).toBe("one\ntwo\nthree");
  talk.stream.destroy();
});

describe("a peer's folder", () => {
  test("while the directory is away files are taken; they are shown as waiting, guarded by their name, and cancelled", async () => {
    const away = { fault: "service" as const, temporary: true };
    world.failure = new SuiteError("directory-unavailable", "away", away);
    try {
      const talk = await owner();
      await talk.ask("CWD /peers/erna@alpha.test", 250);
      await put(talk, "plan.txt", "plan");
      expect(await fetched(talk, "MLSD")).toMatch(/size=4;.*x\.state=(?:queued|sending);.* plan\.txt\r$/m);
      expect(await fetched(talk, "RETR .status")).toMatch(/ state=(?:queued|sending) .*size=4 plan\.txt\n$/);
      expect((await talk.ask("SIZE plan.txt", 213)).text).toBe("4");
      await talk.ask("RETR plan.txt", 550);
      await talk.ask("STOR plan.txt", 450);
      await put(talk, "/peers/gustav@alpha.test/plan.txt", "the same name");
      await talk.ask("REST 20", 350);
      expect(await fetched(talk, "RETR .status")).not.toMatch(/^20/);
      await talk.ask("DELE plan.txt", 250);
      await talk.ask("DELE plan.txt", 550);
      expect(await fetched(talk, "MLSD")).toMatch(/x\.state=failed;x\.reason=cancelled; plan\.txt\r$/m);
      await put(talk, "plan.txt", "better plan");
      expect((await talk.ask("SIZE plan.txt", 213)).text).toBe("11");
      expect(await fetched(talk, "NLST")).toBe("plan.txt\r\n.status\r\n");
      await talk.ask("DELE plan.txt", 250);
      talk.stream.destroy();
    } finally {
      world.failure = undefined;
    }
  });

  test("of somebody whom the directory does not know there is none", async () => {
    const talk = await owner();
    await talk.ask("CWD /peers/nobody@alpha.test", 550);
    await talk.ask("CWD /peers/Bob@Alpha.Test", 250);
    world.failure = new SuiteError("unknown-recipient", "asked again", { fault: "peer" });
    try {
      await talk.ask("CWD /peers/bob@alpha.test", 250);
      await talk.ask("CWD /peers/alice@alpha.test", 550);
    } finally {
      world.failure = undefined;
    }
    talk.stream.destroy();
  });
});
