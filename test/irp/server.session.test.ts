import { generateKeyPairSync, randomBytes } from "node:crypto";
import { once } from "node:events";
import { connect, type Socket } from "node:net";
import { join } from "node:path";
import { afterAll, afterEach, beforeAll, describe, expect, test, vi } from "vitest";
import { CertificateAuthority } from "../../src/irp/ca.ts";
import { type CaKeys, createCa } from "../../src/irp/ca-keys.ts";
import { IrpClient } from "../../src/irp/client.ts";
import { FrameReader, frame } from "../../src/irp/frame.ts";
import { type Reply, type Request, readReply, writeRequest } from "../../src/irp/messages.ts";
import { Registration } from "../../src/irp/registration.ts";
import { serveIrp } from "../../src/irp/server.ts";
import type { LocalListener } from "../../src/peertls-core/loopback.ts";
import { type ServiceTls, upgradeServiceClient } from "../../src/peertls-core/service.ts";
import { fingerprintOf, parseCertificate, peerCertificate } from "../../src/pki/certificate.ts";
import { makeCsr } from "../../src/pki/csr.ts";
import { parseIdentity } from "../../src/pki/identity.ts";
import { issueAuth } from "../../src/pki/profile.ts";
import { Accounts } from "../../src/sixid/server/accounts.ts";
import { openSqliteStore } from "../../src/sixid/store/sqlite.ts";
import { temporaryFolder } from "../support/openssl.ts";
import { makeEcKey, makeTestDomain, spkiOf, type TestCredentials } from "../support/pki.ts";
import { recordLog } from "../support/record-log.ts";

const folder = temporaryFolder();
const clock = () => new Date();
const log = recordLog();
const beta = makeTestDomain({ domain: "beta.test" });
const store = openSqliteStore(":memory:");
const accounts = new Accounts({ store, domain: "alpha.test", clock, random: randomBytes });
let keys: CaKeys;
let ca: CertificateAuthority;
let server: LocalListener;

/** Ten levels of ten. */
const BOMB = Array.from("abcdefghijz", (name, n) =>
  n === 0 ? '<!ENTITY a "aaaaaaaaaa">' : `<!ENTITY ${name} "${`&${"abcdefghij".charAt(n - 1)};`.repeat(10)}">`,
).join("");

function startServer(change: Partial<Pick<ServiceTls, "clock" | "revoked">> = {}): Promise<LocalListener> {
  return serveIrp({
    at: { host: "::1", port: 0 },
    domain: "alpha.test",
    tls: {
      credentials: keys.server,
      clientAnchors: () => [{ name: "alpha.test", certificate: keys.root }, beta.anchor],
      clock,
      log,
      ...change,
    },
    accounts,
    registration: new Registration({ authority: ca, accounts, log, clock }),
    clock,
    log,
  });
}

beforeAll(async () => {
  keys = createCa({ directory: join(folder.path, "ca"), domain: "alpha.test", now: clock(), random: randomBytes });
  ca = new CertificateAuthority({ keys, register: join(folder.path, "ca.db"), clock, random: randomBytes });
  server = await startServer();
});
afterAll(async () => {
  await server.close();
  ca.close();
  await store.close();
  folder[Symbol.dispose]();
});
afterEach(() => void vi.useRealTimers());

/** Frames on any socket, as a test sends them; `next` is undefined when the server hangs up. */
function channel(socket: Socket) {
  const reader = new FrameReader();
  reader.limit = 262_144;
  const replies: Reply[] = [];
  const waiting: ((reply: Reply | undefined) => void)[] = [];
  const closed = Promise.withResolvers<undefined>();
  let over = false;
  const take = (chunk: Buffer) => {
    for (const bytes of reader.push(chunk)) {
      const { reply } = readReply(bytes);
      const found = waiting.shift();
      if (found === undefined) replies.push(reply);
      else found(reply);
    }
  };
  socket.on("data", take);
  socket.on("error", () => undefined);
  const end = () => {
    over = true;
    closed.resolve(undefined);
    for (const found of waiting.splice(0)) found(undefined);
  };
  socket.once("end", end);
  socket.once("close", end);
  let id = 0;
  const next = (): Promise<Reply | undefined> => {
    const known = replies.shift();
    if (known !== undefined || over) return Promise.resolve(known);
    return new Promise((found) => waiting.push(found));
  };
  return {
    socket,
    closed: closed.promise,
    next,
    write: (request: Request) => void socket.write(frame(writeRequest((id += 1), request))),
    ask: (request: Request) => {
      socket.write(frame(writeRequest((id += 1), request)));
      return next();
    },
    release: () => {
      socket.off("data", take);
      socket.off("end", end);
      socket.off("close", end);
    },
  };
}

async function plain() {
  const socket = connect(server.address.port, server.address.host);
  socket.setNoDelay(true);
  await once(socket, "connect");
  return channel(socket);
}

async function secured(credentials?: TestCredentials) {
  const clear = await plain();
  expect(await clear.ask({ type: "hello", domain: "alpha.test" })).toMatchObject({ type: "hello", tls: "required" });
  expect(await clear.ask({ type: "starttls" })).toEqual({ type: "proceed" });
  clear.release();
  const { stream } = await upgradeServiceClient(clear.socket, {
    serverName: "alpha.test",
    trust: { anchors: [{ name: "alpha.test", certificate: keys.root }] },
    clock,
    ...(credentials === undefined ? {} : { credentials }),
  });
  return channel(stream);
}

let people = 0;
async function invited() {
  const identity = parseIdentity(`person${(people += 1)}@alpha.test`);
  const { code } = await accounts.invite(identity, "A Person");
  return { identity, code, auth: { type: "auth" as const, method: "upa" as const, user: identity, secret: { code } } };
}
const csr = (privateKey = makeEcKey(), commonName = "x"): Request => ({
  type: "csr",
  kind: "auth",
  der: makeCsr({ privateKey, commonName }),
});
const leafOf = (reply: Reply | undefined) => {
  if (reply?.type !== "cert") throw new Error(`no certificate: ${JSON.stringify(reply)}`);
  return parseCertificate(reply.certificates[0] ?? Buffer.alloc(0));
};
const errorOf = (reply: Reply | undefined) => (reply?.type === "err" ? reply.code : reply?.type);

async function enrolled() {
  const person = await invited();
  const privateKey = makeEcKey();
  const session = await secured();
  await session.ask(person.auth);
  const certificate = leafOf(await session.ask(csr(privateKey)));
  session.socket.destroy();
  return { ...person, credentials: { privateKey, certificate, chain: [keys.issuing.certificate] } };
}

describe("in clear", () => {
  test.each<[string, Request]>([
    ["auth", { type: "auth", method: "upa", user: "a", secret: { code: "1" } }],
    ["csr", csr()],
    ["cacerts", { type: "cacerts" }],
  ])("%s needs TLS first, and ends the session", async (_name, request) => {
    const session = await plain();
    expect(errorOf(await session.ask(request))).toBe("tls-required");
    await session.closed;
  });

  test("another domain is not found here", async () => {
    const session = await plain();
    expect(errorOf(await session.ask({ type: "hello", domain: "beta.test" }))).toBe("not-found");
    session.socket.destroy();
  });

  test.each<[string, (starttls: Buffer) => Buffer[]]>([
    [
      "in the same segment",
      (starttls) => [Buffer.concat([starttls, frame(writeRequest(2, { type: "auth", method: "sca" }))])],
    ],
    ["half a frame", (starttls) => [Buffer.concat([starttls, Buffer.of(0)])]],
    ["in a segment of its own", (starttls) => [starttls, frame(writeRequest(2, { type: "auth", method: "sca" }))]],
    ["that cannot be framed", (starttls) => [Buffer.concat([starttls, Buffer.alloc(4)])]],
  ])("a command pipelined behind the upgrade, %s, is never heard: the connection ends", async (where, made) => {
    const session = await plain();
    for (const bytes of made(frame(writeRequest(1, { type: "starttls" })))) session.socket.write(bytes);
    await session.closed;
    const replies: (string | undefined)[] = [];
    for (let reply = await session.next(); reply !== undefined; reply = await session.next())
      replies.push(errorOf(reply));
    // In a segment of its own it may come when `proceed` is out: then it is no TLS, and ends the connection all the same.
    expect(replies.filter((one) => one !== "proceed" || where !== "in a segment of its own")).toEqual([]);
  });

  test("hello and the upgrade may come in one segment", async () => {
    const session = await plain();
    session.socket.write(
      Buffer.concat([
        frame(writeRequest(1, { type: "hello", domain: "alpha.test" })),
        frame(writeRequest(2, { type: "starttls" })),
      ]),
    );
    expect([errorOf(await session.next()), errorOf(await session.next())]).toEqual(["hello", "proceed"]);
    session.socket.destroy();
  });

  test("a fourth frame is too many", async () => {
    const session = await plain();
    const hello: Request = { type: "hello", domain: "alpha.test" };
    const replies = [];
    for (let n = 0; n < 4; n += 1) replies.push(errorOf(await session.ask(hello)));
    expect(replies).toEqual(["hello", "hello", "hello", "tls-required"]);
    await session.closed;
  });

  test.each<[string, Buffer, string]>([
    ["a frame over 8 KiB", Buffer.from([0, 0, 0x20, 1]), "bad-frame"],
    ["an empty frame", Buffer.alloc(4), "bad-frame"],
    ["HTTP", Buffer.from("GET / HTTP/1.1\r\n\r\n"), "bad-frame"],
    ["a TLS ClientHello", Buffer.from("16030100ee010000ea0303", "hex"), "bad-frame"],
    ["no XML", frame("hello"), "bad-xml"],
    ["a DTD", frame('<!DOCTYPE a><irp v="1" id="1"><starttls/></irp>'), "bad-xml"],
    ["another version", frame('<irp v="2" id="1"><starttls/></irp>'), "version"],
    ["id 0", frame('<irp v="1" id="0"><starttls/></irp>'), "bad-frame"],
  ])("%s is told and ends the session", async (_name, bytes, code) => {
    for (const size of [bytes.length, 1]) {
      const session = await plain();
      for (let at = 0; at < bytes.length; at += size) session.socket.write(bytes.subarray(at, at + size));
      expect(errorOf(await session.next())).toBe(code);
      await session.closed;
    }
  });

  test("what was sent before a broken frame is still answered", async () => {
    const session = await plain();
    session.socket.write(
      Buffer.concat([frame(writeRequest(1, { type: "hello", domain: "alpha.test" })), Buffer.alloc(4)]),
    );
    expect([errorOf(await session.next()), errorOf(await session.next())]).toEqual(["hello", "bad-frame"]);
    await session.closed;
  });

  test("seventeen requests at once are too many", async () => {
    const session = await plain();
    session.socket.write(
      Buffer.concat(
        Array.from({ length: 17 }, (_one, n) => frame(writeRequest(n + 1, { type: "hello", domain: "alpha.test" }))),
      ),
    );
    expect(errorOf(await session.next())).toBe("busy");
    await session.closed;
  });

  test("who does not get on in 10 s is hung up on, and who vanishes harms nobody", async () => {
    const gone = await plain();
    gone.socket.write(Buffer.from([0, 0]));
    gone.socket.resetAndDestroy();
    vi.useFakeTimers({ toFake: ["setTimeout", "clearTimeout"] });
    const slow = await plain();
    expect(errorOf(await slow.ask({ type: "hello", domain: "alpha.test" }))).toBe("hello");
    for (const octet of [0, 0]) {
      slow.socket.write(Buffer.of(octet));
      const other = await plain();
      await other.ask({ type: "hello", domain: "alpha.test" });
      other.socket.destroy();
      vi.advanceTimersByTime(5_000);
    }
    await slow.closed;
  });

  test("who does not hang up after an error is hung up on", async () => {
    const socket = connect({ port: server.address.port, host: server.address.host, allowHalfOpen: true });
    await once(socket, "connect");
    vi.useFakeTimers({ toFake: ["setTimeout", "clearTimeout"] });
    socket.on("error", () => undefined);
    socket.resume();
    socket.write(Buffer.alloc(4));
    await once(socket, "end");
    vi.advanceTimersByTime(2_000);
    const dead = new Promise((resolve) => socket.once("error", resolve));
    const knock = setInterval(() => socket.write("x"), 5);
    await dead;
    clearInterval(knock);
  });
});

describe("inside TLS", () => {
  test("an unknown caller is told nothing but the CA certificates", async () => {
    const session = await secured();
    const chain = await session.ask({ type: "cacerts" });
    expect(chain).toMatchObject({
      type: "cacerts",
      certificates: [Buffer.from(keys.issuing.certificate.der), Buffer.from(keys.root.der)],
    });
    expect(errorOf(await session.ask(csr()))).toBe("auth-required");
    expect(errorOf(await session.ask({ type: "auth", method: "sca" }))).toBe("auth-failed");
    expect(errorOf(await session.ask({ type: "starttls" }))).toBe("bad-xml");
    await session.closed;
  });

  test("a code gives one certificate, for the invited person, whatever the request names", async () => {
    const { identity, auth } = await invited();
    const session = await secured();
    expect(await session.ask(auth)).toMatchObject({ type: "ok", identity });
    const leaf = leafOf(await session.ask(csr(makeEcKey(), "admin@alpha.test")));
    expect(peerCertificate(leaf).identities.map((one) => one.identity)).toEqual(expect.arrayContaining([identity]));
    expect(new Set(peerCertificate(leaf).identities.map((one) => one.identity))).toEqual(new Set([identity]));
    expect(peerCertificate(leaf).commonName).toBe("A Person");
    expect(leaf.basicConstraints?.ca ?? false).toBe(false);
    session.socket.destroy();
  });

  test("a used code gives another key nothing, but the same request its certificate again", async () => {
    const { auth } = await invited();
    const privateKey = makeEcKey();
    const request = csr(privateKey);
    const first = await secured();
    await first.ask(auth);
    const leaf = leafOf(await first.ask(request));
    first.socket.destroy();
    const thief = await secured();
    expect(errorOf(await thief.ask(auth))).toBe("ok");
    const key = makeEcKey();
    expect(errorOf(await thief.ask(csr(key)))).toBe("auth-failed");
    expect(ca.keyOwner(fingerprintOf(key))).toBeUndefined(); // neither issued nor spoilt
    thief.socket.destroy();
    const again = await secured();
    await again.ask(auth);
    expect(leafOf(await again.ask(request)).sha256).toBe(leaf.sha256);
    again.socket.destroy();
  });

  test("a code is for the first certificate: not for an encryption key, not for a renewal", async () => {
    const { auth } = await invited();
    const session = await secured();
    await session.ask(auth);
    const { der } = csr() as Request & { type: "csr" };
    expect(errorOf(await session.ask({ type: "csr", kind: "encryption", der }))).toBe("forbidden");
    expect(errorOf(await session.ask({ type: "renew", kind: "auth", mode: "new", der }))).toBe("forbidden");
    session.socket.destroy();
  });

  test("wrong codes: the fifth makes the account wait and ends the session; what was piped behind is not heard", async () => {
    const { identity, auth } = await invited();
    const session = await secured();
    const wrong: Request = { type: "auth", method: "upa", user: identity, secret: { code: "WRONG-CODE" } };
    for (let n = 0; n < 7; n += 1) session.write(wrong);
    const replies: (string | undefined)[] = [];
    for (let reply = await session.next(); reply !== undefined; reply = await session.next())
      replies.push(errorOf(reply));
    expect(replies).toEqual(["auth-failed", "auth-failed", "auth-failed", "auth-failed", "auth-failed"]);
    const right = await secured();
    expect(await right.ask(auth)).toMatchObject({ type: "err", code: "auth-failed", retry: 1 });
    right.socket.destroy();
  });

  test("an unknown person and a wrong code get the same answer", async () => {
    const { identity } = await invited();
    const session = await secured();
    const attempt = (user: string) =>
      session.ask({ type: "auth", method: "upa", user, secret: { code: "WRONG-CODE" } });
    expect(await attempt("nobody@alpha.test")).toEqual(await attempt(identity));
    expect(await attempt("x@beta.test")).toEqual(await attempt("not an identity"));
    session.socket.destroy();
  });

  test("authenticating again in vain leaves nobody", async () => {
    const { auth, identity } = await invited();
    const session = await secured();
    expect(errorOf(await session.ask(auth))).toBe("ok");
    expect(
      errorOf(await session.ask({ type: "auth", method: "upa", user: identity, secret: { code: "WRONG-CODE" } })),
    ).toBe("auth-failed");
    expect(errorOf(await session.ask(csr()))).toBe("auth-required");
    session.socket.destroy();
  });

  test.each<[string, () => Request, string]>([
    ["no request", () => ({ type: "csr", kind: "auth", der: Buffer.from("nonsense") }), "bad-csr"],
    [
      "a request whose signature is not its key's",
      () => {
        const { der } = csr() as Request & { type: "csr" };
        der.writeUInt8((der.at(-1) ?? 0) ^ 1, der.length - 1);
        return { type: "csr", kind: "auth", der };
      },
      "bad-csr",
    ],
    ["an RSA key for AUTH", () => csr(generateKeyPairSync("rsa", { modulusLength: 2048 }).privateKey), "weak-key"],
    [
      "a curve that is not certified",
      () => csr(generateKeyPairSync("ec", { namedCurve: "secp521r1" }).privateKey),
      "weak-key",
    ],
  ])("%s is refused and the code stays good", async (_name, made, code) => {
    const { auth } = await invited();
    const session = await secured();
    await session.ask(auth);
    const refused = errorOf(await session.ask(made()));
    expect(code === "weak-key" ? ["weak-key", "bad-csr"] : [code]).toContain(refused);
    leafOf(await session.ask(csr()));
    session.socket.destroy();
  });

  test("a key is one person's for ever", async () => {
    const first = await enrolled();
    const second = await invited();
    const session = await secured();
    await session.ask(second.auth);
    expect(errorOf(await session.ask(csr(first.credentials.privateKey)))).toBe("key-in-use");
    session.socket.destroy();
  });

  test("by certificate: encryption and renewal for its own key and for another, not for a stranger's", async () => {
    const { identity, credentials } = await enrolled();
    const other = await enrolled();
    const session = await secured(credentials);
    expect(await session.ask({ type: "auth", method: "sca" })).toMatchObject({ type: "ok", identity });
    const der = (key = makeEcKey()) => makeCsr({ privateKey: key, commonName: "x" });
    leafOf(await session.ask({ type: "csr", kind: "encryption", der: der() }));
    expect(
      leafOf(await session.ask({ type: "renew", kind: "auth", mode: "same", der: der(credentials.privateKey) }))
        .fingerprint,
    ).toBe(credentials.certificate.fingerprint);
    expect(errorOf(await session.ask({ type: "renew", kind: "auth", mode: "same", der: der() }))).toBe("forbidden");
    expect(
      errorOf(await session.ask({ type: "renew", kind: "auth", mode: "new", der: der(other.credentials.privateKey) })),
    ).toBe("key-in-use");
    expect(errorOf(await session.ask({ type: "renew", kind: "encryption", mode: "same", der: der() }))).toBe(
      "forbidden",
    );
    leafOf(await session.ask({ type: "renew", kind: "auth", mode: "new", der: der() }));
    session.socket.destroy();
  });

  test("a revoked certificate gets no new one", async () => {
    const { credentials } = await enrolled();
    ca.revoke(Buffer.from(credentials.certificate.serial).toString("hex"));
    const session = await secured(credentials);
    expect(errorOf(await session.ask({ type: "auth", method: "sca" }))).toBe("auth-failed");
    session.socket.destroy();
  });

  test("a certificate that is revoked while its session is open gets no new one in it", async () => {
    const { credentials } = await enrolled();
    const session = await secured(credentials);
    await session.ask({ type: "auth", method: "sca" });
    ca.revoke(Buffer.from(credentials.certificate.serial).toString("hex"));
    const der = makeCsr({ privateKey: makeEcKey(), commonName: "x" });
    expect(errorOf(await session.ask({ type: "renew", kind: "auth", mode: "new", der }))).toBe("forbidden");
    expect(errorOf(await session.ask({ type: "csr", kind: "auth", der }))).toBe("forbidden");
    expect(errorOf(await session.ask({ type: "certs" }))).toBe("forbidden");
    session.socket.destroy();
  });

  test("a revoked certificate is not handed out again for the request that it was made for", async () => {
    const { auth } = await invited();
    const request = csr();
    const session = await secured();
    await session.ask(auth);
    ca.revoke(Buffer.from(leafOf(await session.ask(request)).serial).toString("hex"));
    expect(errorOf(await session.ask(request))).toBe("key-in-use");
    session.socket.destroy();
  });

  test("another domain's CA that names one of our people speaks for nobody here", async () => {
    const { identity } = await enrolled();
    const privateKey = makeEcKey();
    const der = issueAuth({
      issuer: beta.root,
      now: clock(),
      serial: randomBytes(16),
      spki: spkiOf(privateKey),
      identity,
      name: "Forged",
    });
    const session = await secured({ privateKey, certificate: parseCertificate(der), chain: [] });
    expect(errorOf(await session.ask({ type: "auth", method: "sca" }))).toBe("auth-failed");
    expect(errorOf(await session.ask(csr()))).toBe("auth-required");
    session.socket.destroy();
  });

  test("frames grow to 256 KiB with authentication, not before, and not beyond", async () => {
    const { auth } = await invited();
    const session = await secured();
    await session.ask(auth);
    session.socket.write(frame(`<irp v="1" id="2"><csr kind="auth">${"A".repeat(100_000)}</csr></irp>`));
    expect(errorOf(await session.next())).toBe("bad-csr");
    session.socket.write(Buffer.from([0, 4, 0, 1]));
    expect(errorOf(await session.next())).toBe("bad-frame");
    await session.closed;
    const before = await secured();
    before.socket.write(Buffer.from([0, 0, 0x20, 1]));
    expect(errorOf(await before.next())).toBe("bad-frame");
    before.socket.destroy();
  });

  test("half a frame that stays half for ten seconds ends the session, also of who has authenticated", async () => {
    const { credentials } = await enrolled();
    vi.useFakeTimers({ toFake: ["setTimeout", "clearTimeout"] });
    const session = await secured(credentials);
    await session.ask({ type: "auth", method: "sca" });
    session.socket.write(Buffer.from([0, 0, 1]));
    const other = await secured();
    await other.ask({ type: "hello", domain: "alpha.test" }); // the bytes before have come by now
    other.socket.destroy();
    vi.advanceTimersByTime(9_999);
    session.socket.write(Buffer.from([0]));
    const third = await plain();
    await third.ask({ type: "hello", domain: "alpha.test" });
    third.socket.destroy();
    vi.advanceTimersByTime(1); // another octet gives no other ten seconds
    await session.closed;
  });

  test.each<[string, () => Buffer]>([
    ["ten megabytes", () => Buffer.concat([Buffer.from([0, 0x98, 0x96, 0x80]), Buffer.alloc(10_000_000, "<a>")])],
    ["a bomb of entities", () => frame(`<!DOCTYPE b [${BOMB}]><irp v="1" id="2"><auth method="sca">&z;</auth></irp>`)],
    ["an entity of a file", () => frame('<!DOCTYPE b [<!ENTITY z SYSTEM "file:///etc/passwd">]><irp v="1" id="2"/>')],
    ["80,000 levels", () => frame(`<irp v="1" id="2">${"<a>".repeat(80_000)}</irp>`)],
    ["80,000 elements", () => frame(`<irp v="1" id="2">${"<a/>".repeat(60_000)}</irp>`)],
    ["250,000 references", () => frame(`<irp v="1" id="2"><users q="${"&amp;".repeat(50_000)}"/></irp>`)],
  ])("%s from one who has authenticated ends his session in no time, and nobody else's", async (_name, made) => {
    const { credentials } = await enrolled();
    const session = await secured(credentials);
    const other = await secured(credentials);
    await session.ask({ type: "auth", method: "sca" });
    await other.ask({ type: "auth", method: "sca" });
    const bytes = made();
    const start = performance.now();
    session.socket.write(bytes);
    expect(["bad-xml", "bad-frame", undefined]).toContain(errorOf(await session.next()));
    await session.closed;
    expect(performance.now() - start).toBeLessThan(1_000);
    expect(errorOf(await other.ask({ type: "certs" }))).toBe("certs");
    other.socket.destroy();
  });

  test("an expired and a revoked certificate do not get through the handshake", async () => {
    const { credentials } = await enrolled();
    const late = await startServer({
      clock: () => new Date(credentials.certificate.validity.notAfter.getTime() + 1_000),
    });
    const strict = await startServer({ revoked: (one) => one.sha256 === credentials.certificate.sha256 });
    try {
      for (const at of [late, strict]) {
        const o = { address: at.address, domain: "alpha.test", clock, credentials };
        const trust = { anchors: [{ name: "alpha.test", certificate: keys.root }] };
        await expect(IrpClient.connect({ ...o, trust }, AbortSignal.timeout(5_000))).rejects.toMatchObject({
          fault: "service",
        });
      }
      const alerts = log.lines
        .filter(({ message }) => message === "enrolment session ended")
        .map(({ fields }) => fields["error"]);
      expect(alerts.slice(-2)).toMatchObject([{ details: { alert: 45 } }, { details: { alert: 44 } }]);
    } finally {
      await late.close();
      await strict.close();
    }
  });

  test("the audit hangs together after all this, and the log names no code", async () => {
    const { code } = await invited();
    expect(ca.auditHolds()).toBe(true);
    expect(JSON.stringify(log.lines)).not.toContain(code);
  });
});

test("a client goes on only after `proceed`, and only with the server that its invitation names", async () => {
  const signal = AbortSignal.timeout(10_000);
  const o = { address: server.address, domain: "alpha.test", clock };
  await expect(IrpClient.connect({ ...o, trust: { rootHash: "0".repeat(32) } }, signal)).rejects.toMatchObject({
    code: "certificate-invalid",
  });
  await expect(IrpClient.connect({ ...o, trust: { anchors: [beta.anchor] } }, signal)).rejects.toMatchObject({
    code: "certificate-invalid",
  });
  const client = await IrpClient.connect({ ...o, trust: { rootHash: keys.root.fingerprint.slice(0, 32) } }, signal);
  expect(client.root.sha256).toBe(keys.root.sha256);
  client.close();
});
