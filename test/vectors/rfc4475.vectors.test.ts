import { randomBytes } from "node:crypto";
import { readdirSync, readFileSync } from "node:fs";
import { join } from "node:path";
import { describe, expect, test } from "vitest";
import type { OwnerAccess } from "../../src/delivery/owner-access.ts";
import { type Identity, parseIdentity } from "../../src/pki/identity.ts";
import { silentLog } from "../../src/pki/log.ts";
import { type Framed, parseDatagram, type SipMessage, StreamFramer, value, values } from "../../src/sip/grammar.ts";
import { parseNameAddr, parseVia } from "../../src/sip/headers.ts";
import { LocalSip } from "../../src/sip/local.ts";
import { parseSipUri } from "../../src/sip/uri.ts";
import { authorization, hashed } from "../sip/digest-client.ts";
import { sharedFolder } from "../support/shared.ts";

const folder = sharedFolder("vectors/sip/rfc4475");
const bytesOf = (name: string) => readFileSync(join(folder ?? "", `${name}.dat`));

/** As a node's registrar and MESSAGE endpoint, the "identity rule" on: what the node answers by datagram. */
const answers: Record<string, string> = {
  // 3.1.1: well formed
  wsinv: "405", // INVITE is not served: method first (RFC 3261 §8.2.1)
  intmeth: "501",
  esc01: "405",
  escnull: "400", // an identity never holds a NUL; the Contacts are in test/sip/registrar.test.ts
  esc02: "501",
  lwsdisp: "200",
  longreq: "405",
  dblreq: "401",
  semiuri: "200",
  transports: "200",
  mpart01: "401",
  unreason: "none",
  noreason: "none",
  // 3.1.2: malformed
  badinv01: "400",
  clerr: "400",
  ncl: "400",
  scalar02: "400",
  scalarlg: "none",
  quotbal: "400",
  ltgtruri: "400",
  lwsruri: "400",
  lwsstart: "400",
  trws: "400",
  escruri: "400",
  baddate: "405",
  regbadct: "401",
  badaspec: "400",
  baddn: "400",
  badvers: "505",
  mismatch01: "400",
  mismatch02: "400",
  bigcode: "none",
  // 3.2, 3.3, 3.4
  badbranch: "400",
  insuf: "400",
  unkscm: "416",
  novelsc: "416",
  unksm2: "400",
  bext01: "420",
  invut: "405",
  regaut01: "401",
  multi01: "400",
  mcl01: "400",
  bcast: "none",
  zeromf: "200",
  cparam01: "401",
  cparam02: "401",
  regescrt: "401",
  sdp01: "405",
  inv2543: "405",
  test: "none", // neither Via nor version: nobody to answer
};

function answerTo(bytes: Buffer, owner: Identity): Promise<{ status: string; text: string }> {
  const passwords: OwnerAccess = {
    owner,
    realm: "example.com",
    verify: () => undefined,
    ha1s: (algorithm) => [{ id: "app", ha1: hashed(algorithm, "user:example.com:p") }],
  };
  const sip = new LocalSip({
    access: passwords,
    clock: () => new Date(),
    random: randomBytes,
    log: silentLog,
    submit: async () => "accepted",
    onRegistered: () => undefined,
  });
  return new Promise((resolve) => {
    let text = "";
    const udp = {
      address: { host: "127.0.0.1", port: 5062 },
      close: async () => undefined,
      send: (sent: Uint8Array) => void (text += Buffer.from(sent).toString()),
    };
    sip.acceptDatagram(udp, bytes, { host: "192.0.2.1", port: 5060 });
    // Answers are made in promises alone: they are there when the event loop comes round.
    setImmediate(() =>
      setImmediate(() => {
        sip.stop();
        resolve({ status: text === "" ? "none" : (/^SIP\/2\.0 (\d+)/.exec(text)?.[1] ?? text), text });
      }),
    );
  });
}

function ownerOf(framed: Framed): Identity {
  const from = framed.kind === "message" ? (value(framed.message.headers, "from") ?? "") : "";
  try {
    const { user, host } = parseNameAddr(from).uri;
    return parseIdentity(`${user}@${host}`);
  } catch {
    return parseIdentity("user@example.com");
  }
}

function streamed(bytes: Buffer, size: number): Framed[] {
  const framer = new StreamFramer();
  const framed: Framed[] = [];
  for (let at = 0; at < bytes.length; at += size) framed.push(...framer.push(bytes.subarray(at, at + size)));
  return framed;
}

describe.skipIf(folder === undefined)("RFC 4475, SIP torture messages", () => {
  const files =
    folder === undefined
      ? []
      : readdirSync(folder)
          .filter((name) => name.endsWith(".dat"))
          .map((name) => name.slice(0, -4));

  test("every file of the set is judged here", () => {
    expect(files.sort()).toEqual(Object.keys(answers).sort());
  });

  test.each(Object.entries(answers))("%s gets: %s", async (name, status) => {
    const bytes = bytesOf(name);
    expect((await answerTo(bytes, ownerOf(parseDatagram(bytes)))).status).toBe(status);
  });

  test.each(Object.keys(answers))("%s by stream is the same whole, octet by octet and in pieces", (name) => {
    const bytes = bytesOf(name);
    const whole = streamed(bytes, bytes.length);
    for (const size of [1, 2, 3, 17, 100]) expect(streamed(bytes, size)).toEqual(whole);
  });

  test.each<[string, (Framed["kind"] | "fatal")[]]>([
    ["ncl", ["fatal"]],
    ["mcl01", ["fatal"]],
    ["inv2543", ["fatal"]],
    ["clerr", []],
    ["baddn", []],
    ["dblreq", ["message", "message", "fatal"]],
  ])("%s by stream: %j", (name, kinds) => {
    const framed = streamed(bytesOf(name), 1_000);
    expect(framed.map((one) => (one.kind === "refused" && one.fatal ? "fatal" : one.kind)).slice(0, 3)).toEqual(kinds);
  });

  const message = (name: string): SipMessage => {
    const framed = parseDatagram(bytesOf(name));
    if (framed.kind !== "message") throw new Error(`${name} was refused`);
    return framed.message;
  };
  const field = (name: string, header: string) => values(message(name).headers, header);

  test("wsinv: three Via, a folded subject, compact names, escaped quotes", () => {
    const vias = field("wsinv", "via").map(parseVia);
    expect(vias.map(({ transport, host }) => [transport, host])).toEqual([
      ["UDP", "192.0.2.2"],
      ["TCP", "spindle.example.com"],
      ["UDP", "192.168.255.111"],
    ]);
    expect(vias.map(({ parameters }) => parameters.get("branch"))).toEqual([
      "390skdjuw",
      "z9hG4bK9ikj8",
      "z9hG4bK30239",
    ]);
    expect(parseNameAddr(field("wsinv", "to")[0] ?? "").parameters.get("tag")).toBe("1918181833n");
    expect(parseNameAddr(field("wsinv", "from")[0] ?? "").display).toBe('J Rosenberg \\"');
    expect(value(message("wsinv").headers, "newfangledheader")).toBe("newfangled value continued newfangled value");
  });

  test("esc01: each escape is undone once, and none changes the structure", () => {
    const invite = message("esc01");
    const uri = parseSipUri(invite.kind === "request" ? invite.uri : "");
    expect([uri.user, uri.host]).toEqual(["sips:user@example.com", "example.net"]);
    expect(parseNameAddr(field("esc01", "to")[0] ?? "").uri.user).toBe("user");
    expect(parseNameAddr(field("esc01", "contact")[0] ?? "").uri.parameters).toEqual(
      new Map([
        ["lr", ""],
        ["name", "value%41"],
      ]),
    );
  });

  test("semiuri: the parameters belong to the user", () => {
    const options = message("semiuri");
    expect(parseSipUri(options.kind === "request" ? options.uri : "")).toMatchObject({
      user: "user;par=u@example.net",
      host: "example.com",
      parameters: new Map(),
    });
  });

  test("longreq: 34 Via; mpart01: the binary body is intact; unreason, noreason: the phrase as it is", () => {
    expect(field("longreq", "via")).toHaveLength(34);
    const mpart = bytesOf("mpart01");
    expect(message("mpart01").body).toEqual(mpart.subarray(mpart.indexOf("\r\n\r\n") + 4));
    expect(message("unreason")).toMatchObject({
      status: 200,
      reason: "= 2**3 * 5**2 но сто девяносто девять - простое",
    });
    expect(message("noreason")).toMatchObject({ status: 100, reason: "" });
    expect(field("transports", "via").map((via) => parseVia(via).transport)).toEqual([
      "UDP",
      "SCTP",
      "TLS",
      "UNKNOWN",
      "TCP",
    ]);
  });

  test("bext01: Unsupported lists what Require asked for", async () => {
    const { text } = await answerTo(bytesOf("bext01"), parseIdentity("user@example.com"));
    expect(text).toMatch(/^Unsupported: nothingSupportsThis, nothingSupportsThisEither\r$/m);
  });

  test("dblreq by datagram: the first message only", async () => {
    const { text } = await answerTo(bytesOf("dblreq"), parseIdentity("j.user@example.com"));
    expect(text.match(/^SIP\/2\.0/gm)).toHaveLength(1);
    expect(text).toMatch(/^CSeq: 8 REGISTER\r$/m);
  });

  test.each<[string, string, RegExp]>([
    ["cparam01", "200", /^Contact: <sip:\+19725552222@gw1\.example\.net>;expires=600\r$/m],
    ["cparam02", "200", /^Contact: <sip:\+19725552222@gw1\.example\.net;unknownparam>;expires=600\r$/m],
    ["regescrt", "200", /^Contact: <sip:user@example\.com\?Route=%3Csip:sip\.example\.com%3E>;expires=600\r$/m],
    ["regbadct", "400", /Bad Request/],
  ])("%s with a proof: %s", async (name, status, shows) => {
    const owner = ownerOf(parseDatagram(bytesOf(name)));
    const sip = (sent: string) => Buffer.from(sent, "latin1");
    const original = bytesOf(name).toString("latin1");
    // One node for both: the nonce is its own.
    let text = "";
    const node = new LocalSip({
      access: {
        owner,
        realm: "example.com",
        verify: () => undefined,
        ha1s: (algorithm) => [{ id: "app", ha1: hashed(algorithm, "u:example.com:p") }],
      },
      clock: () => new Date(),
      random: randomBytes,
      log: silentLog,
      submit: async () => "accepted",
      onRegistered: () => undefined,
    });
    const udp = {
      address: { host: "127.0.0.1", port: 5062 },
      close: async () => undefined,
      send: (sent: Uint8Array) => void (text = Buffer.from(sent).toString()),
    };
    const ask = async (sent: string) => {
      node.acceptDatagram(udp, sip(sent), { host: "192.0.2.1", port: 5060 });
      await new Promise((done) => setImmediate(() => setImmediate(done)));
    };
    await ask(original);
    const nonce = /nonce="([^"]+)"/.exec(text)?.[1] ?? "";
    const header = authorization({
      user: "u",
      realm: "example.com",
      password: "p",
      method: "REGISTER",
      uri: "sip:example.com",
      nonce,
      nc: 1,
      algorithm: "SHA-256",
    });
    await ask(
      original.replace("\r\n", `\r\nAuthorization: ${header}\r\n`).replace(/branch=\S+/, "branch=z9hG4bKsecond"),
    );
    node.stop();
    expect(text).toMatch(new RegExp(`^SIP/2\\.0 ${status} `));
    expect(text).toMatch(shows);
  });
});
