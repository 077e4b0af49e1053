import { randomBytes } from "node:crypto";
import { Readable } from "node:stream";
import { afterAll, beforeAll, beforeEach, expect, test } from "vitest";
import type { Outgoing } from "../../src/delivery/endpoint.ts";
import { dataToken } from "../../src/ftps/grammar.ts";
import { FileSender } from "../../src/ftps/send.ts";
import type { PeerConnection } from "../../src/peertls-core/connection.ts";
import { makePeerTls, type PeerTls } from "../../src/peertls-core/peertls.ts";
import type { TrustRules } from "../../src/peertls-core/policy.ts";
import { Trust } from "../../src/peertls-core/trust.ts";
import { silentLog } from "../../src/pki/log.ts";
import type { PeerRecord } from "../../src/sixid/directory.ts";
import type { TestPerson } from "../support/pki.ts";
import { bytesOf, failureOf } from "../support/smime.ts";
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
