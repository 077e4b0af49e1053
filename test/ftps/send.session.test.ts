import { createHash, randomBytes } from "node:crypto";
import { Readable } from "node:stream";
import { afterAll, beforeAll, beforeEach, describe, expect, test } from "vitest";
import { wayTo } from "../../src/delivery/devices.ts";
import type { Outgoing } from "../../src/delivery/endpoint.ts";
import { FtpClient } from "../../src/ftps/client.ts";
import { dataToken } from "../../src/ftps/grammar.ts";
import { FileSender } from "../../src/ftps/send.ts";
import type { PeerConnection } from "../../src/peertls-core/connection.ts";
import { makePeerTls, type PeerTls } from "../../src/peertls-core/peertls.ts";
import type { TrustRules } from "../../src/peertls-core/policy.ts";
import { Trust } from "../../src/peertls-core/trust.ts";
import { silentLog } from "../../src/pki/log.ts";
import type { PeerDevice, PeerRecord } from "../../src/sixid/directory.ts";
import type { TestPerson } from "../support/pki.ts";
import { bytesOf, failureOf } from "../support/smime.ts";
import { startWire } from "../support/wire.ts";
import { FileWorld } from "./file-node.ts";

/** What the scripted peer says to a command; `undefined` closes its connection. */
type Script = (command: string, control: number) => string | undefined;

const world = new FileWorld();
const alice = world.person("alice");
const bob = world.person("bob");
const bytes = randomBytes(300_000);
let hers: PeerTls;
let his: PeerTls;
let trust: Trust;
let record: PeerRecord;
let script: Script;
let said: string[];
let uploads: Buffer[];
let controls = 0;
let sender: FileSender;

function rules(change: Partial<TrustRules> = {}): TrustRules {
  const anchor = {
    name: "alpha",
    certificate: world.domain.root.certificate,
    domains: ["alpha.test"],
    organisations: [],
    identitiesFrom: ["rfc822Name"] as const,
  };
  const none = { block: [], allow: [], contacts: [], requestsOnPort: false };
  return { anchors: [anchor], rules: [{ domain: "alpha.test" }], otherwise: "deny", ...none, ...change };
}

async function core(person: TestPerson, trusts: Trust): Promise<PeerTls> {
  const clock = () => new Date();
  return makePeerTls({ credentials: person.auth, trust: trusts, clock, random: randomBytes, log: silentLog });
}

/** A peer that says what the test wants, and keeps what is uploaded. */
function serve(connection: PeerConnection): void {
  const control = controls++;
  let data: Promise<PeerConnection> | undefined;
  let text = "";
  const { stream } = connection;
  const say = (reply: string | undefined) => (reply === undefined ? stream.destroy() : stream.write(`${reply}\r\n`));
  stream.on("error", () => undefined);
  say("220 hello");
  stream.on("data", (chunk: Buffer) => {
    text += chunk.toString();
    for (let end = text.indexOf("\r\n"); end >= 0; end = text.indexOf("\r\n")) {
      const command = text.slice(0, end);
      text = text.slice(end + 2);
      said.push(command);
      if (command === "EPSV") {
        const token = dataToken(randomBytes(16));
        data = his.expectData({ control: connection, token }).connection;
        say(`229 Entering Extended Passive Mode, data ${token} (|||1|)`);
      } else if (command.startsWith("STOR")) {
        const answer = script(command, control);
        if (answer?.startsWith("reset ")) {
          say("150 go");
          data
            ?.then((one) => {
              one.stream.once("data", () => one.stream.destroy());
              one.stream.once("close", () => setImmediate(() => say(answer.slice("reset ".length))));
            })
            .catch(() => undefined);
        } else if (answer?.startsWith("2") !== true && !answer?.startsWith("553")) say(answer);
        else {
          say("150 go");
          data
            ?.then(async (one) => {
              uploads.push(await bytesOf(one.stream));
              say(answer);
            })
            .catch(() => undefined); // the sender gave up
        }
      } else say(script(command, control));
    }
  });
}

/** Yes to all. */
const friendly: Script = (command) => {
  if (command.startsWith("USER")) return "232 in";
  return command.startsWith("STOR") ? `226 Opened ${"a".repeat(64)}` : "200 ok";
};

beforeAll(async () => {
  trust = new Trust(rules());
  [hers, his] = [await core(alice, new Trust(rules())), await core(bob, trust)];
  his.onPeer("ftps", serve);
  const { port } = await his.listen({ host: "::1", port: 0 });
  world.publish(bob, port);
  record = await world.lookup(bob.identity);
});
beforeEach(() => {
  sender?.stop();
  sender = new FileSender(hers);
  script = friendly;
  said = [];
  uploads = [];
  controls = 0;
});
afterAll(async () => {
  sender.stop();
  await hers.close();
  await his.close();
});

function outgoing(): { item: Outgoing; progress: number[] } {
  const progress: number[] = [];
  const envelope = { from: alice.identity } as Outgoing["envelope"];
  const open = () => Readable.from([bytes.subarray(0, 100_000), bytes.subarray(100_000)], { objectMode: false });
  const item = {
    envelope,
    transfer: "00ff",
    object: "00ff.p7m",
    size: bytes.length,
    open,
    progress: (sent: number) => void progress.push(sent),
  };
  return { item, progress };
}

const deliver = (item = outgoing().item, signal = AbortSignal.timeout(10_000)) => sender.deliver(item, record, signal);

test("the dialogue of one upload, and its progress", async () => {
  const { item, progress } = outgoing();
  await deliver(item);
  expect(said).toEqual(["USER alice@alpha.test", "TYPE I", "ALLO 300000", "EPSV", "STOR /inbox/00ff.p7m"]);
  expect(uploads.map((one) => one.equals(bytes))).toEqual([true]);
  expect(progress).toEqual([0, 100_000, 300_000]);
});

test("a connection that was kept and breaks at the next file is dialled anew, within the same attempt", async () => {
  await deliver();
  script = (command, control) => (control === 0 ? undefined : friendly(command, control));
  await deliver();
  expect([controls, uploads.length]).toEqual([2, 2]);
});

test("a connection that breaks when it is new fails the attempt, for a while", async () => {
  script = (command, control) => (command.startsWith("ALLO") ? undefined : friendly(command, control));
  expect(await failureOf(deliver())).toMatchObject({ code: "unreachable", temporary: true });
  expect(controls).toBe(1);
});

test("a seal that is refused is sent once more, and then not again", async () => {
  let refusals = 1;
  script = (command, control) =>
    command.startsWith("STOR") && refusals-- > 0 ? "553 Seal not accepted." : friendly(command, control);
  await deliver();
  expect(uploads.map((one) => one.equals(bytes))).toEqual([true, true]);
  refusals = 9;
  expect(await failureOf(deliver())).toMatchObject({ code: "seal-unreadable", temporary: false });
  expect(uploads).toHaveLength(4);
});

describe("bytes that may have been sent before", () => {
  const path = "/inbox/00ff.p7m";
  const digest = "a".repeat(64);
  const hash = (size: number) => createHash("sha256").update(bytes.subarray(0, size)).digest("hex");
  const answering =
    (mlst: string, hashed = "550 none"): Script =>
    (command, control) => {
      if (command.startsWith("MLST")) return mlst;
      if (command.startsWith("REST")) return "350 go on";
      return command.startsWith("HASH") ? hashed : friendly(command, control);
    };
  const listed = (facts: string) => `250-Listing:\r\n type=file;${facts} ${path}\r\n250 End`;
  const again = (size?: number) => {
    const { item, progress } = outgoing();
    const open = (from = 0) => Readable.from([bytes.subarray(from)], { objectMode: false });
    return { item: { ...item, open, again: true as const, ...(size === undefined ? {} : { size }) }, progress };
  };

  test("are asked for, and go on behind what is there if that is how they begin", async () => {
    script = answering(listed("x.state=partial;size=100001;"), `213 SHA-256 0-100001 ${hash(100_001)} ${path}`);
    const { item, progress } = again();
    await deliver(item);
    expect(said.slice(said.indexOf("TYPE I") + 1)).toEqual([
      `MLST ${path}`,
      `HASH ${path}`,
      "ALLO 300000",
      "EPSV",
      "REST 100001",
      `STOR ${path}`,
    ]);
    expect(uploads.map((one) => one.equals(bytes.subarray(100_001)))).toEqual([true]);
    expect(progress).toEqual([0, 100_001, 300_000]);
  });

  test.each([
    ["nothing is there", "550 none", "550 none"],
    ["the peer does not understand", "500 what?", "550 none"],
    ["what is there is something else", listed("x.state=partial;size=9;"), `213 SHA-256 0-9 ${"0".repeat(64)} ${path}`],
    [
      "more is there than they are",
      listed("x.state=partial;size=9;"),
      `213 SHA-256 0-300001 ${"0".repeat(64)} ${path}`,
    ],
    ["nothing is known of what is there", listed("x.state=partial;size=9;"), "500 what?"],
  ])("begin anew when %s", async (_what, mlst, hashed) => {
    script = answering(mlst, hashed);
    await deliver(again().item);
    expect(said.filter((line) => line.startsWith("REST"))).toEqual([]);
    expect(uploads.map((one) => one.equals(bytes))).toEqual([true]);
  });

  test("are not sent when they were opened, unless the peer opened something else", async () => {
    script = answering(listed(`x.state=opened;x.digest=${digest};`));
    await deliver(again().item);
    await deliver({ ...again().item, digest });
    expect(uploads).toEqual([]);
    expect(await failureOf(deliver({ ...again().item, digest: "b".repeat(64) }))).toMatchObject({
      code: "seal-unreadable",
    });
    expect(uploads).toHaveLength(1);
  });

  test("go on at once when the connection was cut, and again while more of them arrives each time", async () => {
    const arrived = [0, 50_000, 50_000];
    sender.stop();
    sender = new FileSender(hers, { againMs: [0, 1, 1] });
    script = (command, control) => {
      const size = arrived[control] ?? 0;
      if (command.startsWith("STOR")) return "reset 150 again";
      return answering(listed(`x.state=partial;size=${size};`), `213 SHA-256 0-${size} ${hash(size)} ${path}`)(
        command,
        control,
      );
    };
    const item = { ...outgoing().item, size: 50_000_000 };
    const rest = Array.from({ length: 50 }, () => Buffer.alloc(1_000_000));
    item.open = (from = 0) => Readable.from([bytes.subarray(from), ...rest], { objectMode: false });
    expect(await failureOf(deliver(item))).toMatchObject({ code: "unreachable", temporary: true });
    expect(said.filter((line) => line.startsWith("REST"))).toEqual(["REST 50000", "REST 50000"]);
  });
});

test("a peer that opened another seal than the one that was sent is not believed", async () => {
  const item = { ...outgoing().item, digest: "b".repeat(64) };
  expect(await failureOf(deliver(item))).toMatchObject({ code: "seal-unreadable" });
});

test.each([
  ["ALLO", "552 too large", "limit-exceeded", false],
  ["USER", "530 no", "refused-by-policy", false],
  ["STOR", "550 no", "forbidden", false],
  ["STOR", "452 full", "busy", true],
  ["STOR", "226 Transfer complete.", "unsupported", false],
  ["STOR", "226 Opened nothing", "unsupported", false],
])("%s answered with %j is %s", async (verb, answer, code, temporary) => {
  script = (command, control) => (command.startsWith(verb) ? answer : friendly(command, control));
  expect(await failureOf(deliver())).toMatchObject({ code, temporary });
});

test.each([
  ["452 full", "busy"],
  ["550 no", "forbidden"],
])("a peer that cuts the data short and then says %j is believed what it says", async (answer, code) => {
  script = (command, control) => (command.startsWith("STOR") ? `reset ${answer}` : friendly(command, control));
  const item = { ...outgoing().item, size: 50_000_000 };
  item.open = () =>
    Readable.from(
      Array.from({ length: 50 }, () => Buffer.alloc(1_000_000)),
      { objectMode: false },
    );
  expect(await failureOf(deliver(item))).toMatchObject({ code });
});

test("a peer that cuts the data short and says nothing is unreachable", async () => {
  script = (command, control) => (command.startsWith("STOR") ? "reset 150 again" : friendly(command, control));
  const item = { ...outgoing().item, size: 50_000_000 };
  item.open = () =>
    Readable.from(
      Array.from({ length: 50 }, () => Buffer.alloc(1_000_000)),
      { objectMode: false },
    );
  expect(await failureOf(deliver(item))).toMatchObject({ code: "unreachable", temporary: true });
});

test("whoever does not let us in is told as such, not as a connection that ended", async () => {
  trust.replace(rules({ block: [{ identity: "alice@alpha.test" }] }));
  try {
    expect(await failureOf(deliver())).toMatchObject({ code: "refused-by-peer", temporary: false });
  } finally {
    trust.replace(rules());
  }
});

test("nothing is kept open behind a stop, and what is being sent goes on", async () => {
  script = (command, control) => {
    if (command.startsWith("STOR")) sender.stop();
    return friendly(command, control);
  };
  await deliver();
  expect(uploads).toHaveLength(1);
  expect(hers.connections.filter(({ stream }) => !stream.destroyed)).toEqual([]);
});

test("an abort in the middle ends the attempt and closes its source", async () => {
  const abort = new AbortController();
  const { item } = outgoing();
  let source: Readable | undefined;
  const endless = async function* () {
    for (;;) yield bytes;
  };
  item.open = () => {
    source = Readable.from(endless(), { objectMode: false });
    return source;
  };
  item.progress = (sent) => {
    if (sent > 1_000_000) abort.abort();
  };
  expect(await failureOf(deliver(item, abort.signal))).toMatchObject({ code: "cancelled", temporary: true });
  expect(source?.destroyed).toBe(true);
});

/** Bob's node behind a wire that can be cut. */
async function wired(times: ConstructorParameters<typeof FileSender>[1]) {
  const wire = await startWire({ host: "::1", port: his.address?.port ?? 0 });
  sender = new FileSender(hers, times);
  const devices = record.devices.map((one) => ({
    ...one,
    addresses: [{ host: "::1", port: wire.port, kind: "direct" as const, priority: 0 }],
  }));
  return { wire, deliver: () => sender.deliver(outgoing().item, { ...record, devices }, AbortSignal.timeout(10_000)) };
}

const PATIENCE = { timeout: 5_000 };
const LOGIN = ["USER", "TYPE"];
const UPLOAD = ["ALLO", "EPSV", "STOR"];
const commands = () => said.map((line) => line.split(" ")[0]).filter((line) => line !== "NOOP" && line !== "QUIT");
const patient = { activeMs: 3_600_000, idleMs: 3_600_000, activeForMs: 0 };
const hasty = { activeMs: 100, idleMs: 100, activeForMs: 0 };

test("a kept connection is asked whether the peer is there, and the next file goes over it", async () => {
  const { wire, deliver } = await wired({ heartbeat: hasty });
  await using _wire = wire;
  await deliver();
  await expect.poll(() => said.filter((line) => line === "NOOP").length, PATIENCE).toBeGreaterThan(3);
  await deliver();
  expect(commands()).toEqual([...LOGIN, ...UPLOAD, ...UPLOAD]);
  const kept = hers.connections.find(({ stream }) => !stream.destroyed);
  expect(kept?.stream.listenerCount("data")).toBe(2); // the client's, and one heart's
});

test("a kept connection over which nothing comes any more is gone before the next file needs it", async () => {
  const { wire, deliver } = await wired({ heartbeat: hasty, answerMs: 3_600_000 });
  await using _wire = wire;
  await deliver();
  const kept = hers.connections.find(({ stream }) => !stream.destroyed);
  wire.cut();
  await expect.poll(() => kept?.stream.destroyed, PATIENCE).toBe(true);
  await deliver();
  expect(commands()).toEqual([...LOGIN, ...UPLOAD, ...LOGIN, ...UPLOAD]);
});

test("a kept connection that does not answer the first command of a file is replaced within the same attempt", async () => {
  const { wire, deliver } = await wired({ heartbeat: patient, answerMs: 50 });
  await using _wire = wire;
  await deliver();
  wire.cut("back");
  await deliver();
  expect(commands()).toEqual([...LOGIN, ...UPLOAD, "ALLO", ...LOGIN, ...UPLOAD]);
});

test("a beat under way is over before the file begins, and there is one at a time", async () => {
  const { expected, routes } = wayTo(record.devices[0] as PeerDevice, record);
  const signal = AbortSignal.timeout(10_000);
  const client = new FtpClient(await hers.dial(expected, "ftps", routes, signal), hers);
  await client.login("alice", signal);
  client.beat();
  client.beat();
  await client.upload("/inbox/x", 3, Readable.from([Buffer.from("abc")], { objectMode: false }), 0, signal);
  expect(said.map((line) => line.split(" ")[0])).toEqual([...LOGIN, "NOOP", ...UPLOAD]);
  client.close();
});
