import { createDecipheriv, createHmac } from "node:crypto";
import { once } from "node:events";
import { type Duplex, duplexPair } from "node:stream";
import { afterEach, beforeEach, describe, expect, test, vi } from "vitest";
import { alertRecord, keyLogSecret } from "../../src/peertls-core/alert.ts";
import { DEFAULT_LIMITS, HandshakeLimits, prefixOf } from "../../src/peertls-core/limits.ts";
import { alertNumber, peerFailure } from "../../src/peertls-core/peer-failure.ts";
import { trustSchema } from "../../src/peertls-core/policy-schema.ts";
import {
  handRequest,
  RequestIntake,
  readFrame,
  type Stranger,
  takeRequest,
} from "../../src/peertls-core/request-intake.ts";
import { isGlobal, mayDial, orderRoutes, parseRange } from "../../src/peertls-core/routes.ts";
import { Sessions } from "../../src/peertls-core/sessions.ts";
import type { Fingerprint } from "../../src/pki/certificate.ts";

describe("who may begin a handshake", () => {
  const limits = (change: Partial<typeof DEFAULT_LIMITS> = {}) => new HandshakeLimits({ ...DEFAULT_LIMITS, ...change });

  test("40 at once of one prefix, then 10 a second", () => {
    const one = limits({ pendingPerPrefix: 1_000 });
    const begun = (now: number, n: number) =>
      Array.from({ length: n }, () => one.begin("192.0.2.1", now)).filter((reason) => reason === undefined).length;
    expect(begun(0, 50)).toBe(40);
    expect(begun(1_000, 50)).toBe(10);
    expect(begun(1_050, 50)).toBe(0);
    expect(begun(1_100, 50)).toBe(1);
    expect(begun(1_000_000, 50)).toBe(40);
    expect(one.begin("192.0.2.1", 1_000_000)).toBe("rate");
  });

  test("16 open of one prefix, another is not hindered, and who ends makes room", () => {
    const one = limits();
    for (let n = 0; n < 16; n += 1) expect(one.begin(`2001:db8::${n}`, 0)).toBeUndefined();
    expect(one.begin("2001:db8::ffff", 0)).toBe("pending-prefix");
    expect(one.begin("2001:db8:0:1::1", 0)).toBeUndefined();
    one.end("2001:db8::1", false);
    expect(one.begin("2001:db8::ffff", 0)).toBeUndefined();
  });

  test("256 open in all, and a refused one costs its prefix nothing", () => {
    const one = limits();
    for (let n = 0; n < 256; n += 1) expect(one.begin(`10.0.${n}.1`, 0)).toBeUndefined();
    for (let n = 0; n < 100; n += 1) expect(one.begin("192.0.2.1", 0)).toBe("pending-total");
    one.end("10.0.0.1", false);
    expect(one.begin("192.0.2.1", 0)).toBeUndefined();
  });

  test("from where somebody was admitted 500 a second may come", () => {
    const one = limits({ pendingPerPrefix: 10_000, pendingTotal: 10_000 });
    one.begin("192.0.2.1", 0);
    one.end("192.0.2.1", true);
    one.begin("192.0.2.1", 10_000);
    expect(
      Array.from({ length: 600 }, () => one.begin("192.0.2.1", 10_000)).filter((reason) => reason === undefined),
    ).toHaveLength(499);
  });

  test("100,000 prefixes one after the other are let begin, and looked for quickly", () => {
    const one = limits();
    const start = performance.now();
    for (let n = 0; n < 100_000; n += 1) {
      const host = `2001:db8:${(n >> 16).toString(16)}:${(n & 0xffff).toString(16)}::1`;
      expect(one.begin(host, n)).toBeUndefined();
      one.end(host, false);
    }
    expect(performance.now() - start).toBeLessThan(15_000);
  });

  test("a flood from 60,000 prefixes costs each of them next to nothing, and takes nothing from where peers are", () => {
    const one = limits();
    one.begin("192.0.2.1", 0);
    one.end("192.0.2.1", true);
    const flood = (from: number, count: number, now: number) => {
      for (let n = from; n < from + count; n += 1) {
        const host = `2001:db8:${n.toString(16)}:1::1`;
        if (one.begin(host, now) === undefined) one.end(host, false);
      }
    };
    const before = process.threadCpuUsage().user;
    flood(0, 30_000, 8_000);
    flood(30_000, 30_000, 9_500);
    expect((process.threadCpuUsage().user - before) / 1_000).toBeLessThan(1_500);
    for (let n = 0; n < DEFAULT_LIMITS.pendingTotal; n += 1) one.begin(`10.1.0.${n}`, 9_600);
    expect([one.begin("10.2.0.1", 9_600), one.begin("192.0.2.1", 9_600)]).toEqual(["pending-total", undefined]);
  });

  test.each([
    ["192.0.2.1", "192.0.2.1"],
    ["::ffff:192.0.2.1", "192.0.2.1"],
    ["2001:db8:1:2:3:4:5:6", "2001:db8:1:2"],
    ["2001:DB8:0001:2::", "2001:db8:1:2"],
    ["2001:db8::1", "2001:db8:0:0"],
    ["::1", "0:0:0:0"],
    ["fe80::1%eth0", "fe80:0:0:0"],
    ["::", "0:0:0:0"],
  ])("%s is of %s", (host, prefix) => {
    expect(prefixOf(host)).toBe(prefix);
  });
});

describe("routes", () => {
  test.each<[string, boolean]>([
    ["2a00:1450::1", true],
    ["8.8.8.8", true],
    ["100.63.255.255", true],
    ["172.32.0.1", true],
    ...[
      "::1",
      "::",
      "fe80::1",
      "fc00::1",
      "fd12::1",
      "ff02::1",
      "2001:db8::1",
      "2001::1",
      "2002:a00::1",
      "3fff::1",
      "64:ff9b::808:808",
      "::ffff:8.8.8.8",
      "4000::1",
    ].map((host): [string, boolean] => [host, false]),
    ...[
      "0.0.0.0",
      "10.0.0.1",
      "100.64.0.1",
      "127.0.0.1",
      "169.254.1.1",
      "172.16.0.1",
      "172.31.255.255",
      "192.0.0.1",
      "192.0.2.1",
      "192.168.1.1",
      "198.18.0.1",
      "198.51.100.1",
      "203.0.113.1",
      "224.0.0.1",
      "240.0.0.1",
      "255.255.255.255",
    ].map((host): [string, boolean] => [host, false]),
    ["example.org", false],
    ["", false],
  ])("%s is global: %s", (host, global) => {
    expect(isGlobal(host)).toBe(global);
  });

  test("addresses of private networks are dialled only in the ranges that are named", () => {
    const some = mayDial(["10.1.0.0/16", "fd00:1::/32"]);
    const hosts = [
      "10.1.2.3",
      "10.2.0.1",
      "fd00:1::5",
      "fd00:2::5",
      "127.0.0.1",
      "::1",
      "::ffff:10.1.2.3",
      "8.8.8.8",
      "x",
    ];
    expect(hosts.filter(some)).toEqual(["10.1.2.3", "fd00:1::5", "8.8.8.8"]);
    expect(hosts.filter(mayDial([]))).toEqual(["8.8.8.8"]);
    expect(hosts.filter(mayDial(["0.0.0.0/0", "::/0"]))).toEqual(hosts.slice(0, -1));
    for (const wrong of ["10.0.0.0", "10.0.0.0/33", "fd00::/129", "x/8", "10.0.0.0/8/8", "10.0.0.0/", "10.0.0.0/-1"])
      expect(() => parseRange(wrong)).toThrow("no range of addresses");
  });

  test("global IPv6 first, then other IPv6, then IPv4, each in the record's order; names and impossible ports go", () => {
    const hosts = ["192.0.2.1", "fe80::1", "2a00::2", "8.8.8.8", "2a00::1", "fd00::1", "example.org", "::1%lo"];
    const routes = hosts.map((host) => ({ kind: "direct" as const, address: { host, port: 4605 } }));
    const bad = [0, -1, 65_536].map((port) => ({ kind: "direct" as const, address: { host: "2a00::9", port } }));
    const ordered = orderRoutes([...bad, ...routes]).map(({ address }) => address.host);
    expect(ordered.slice(0, 4)).toEqual(["2a00::2", "2a00::1", "fe80::1", "fd00::1"]);
    expect(ordered.slice(-2)).toEqual(["192.0.2.1", "8.8.8.8"]);
    expect(ordered).not.toContain("example.org");
  });

  test("sixteen at most", () => {
    expect(
      orderRoutes(
        Array.from({ length: 40 }, (_one, n) => ({ kind: "direct", address: { host: `2a00::${n + 1}`, port: 1 } })),
      ),
    ).toHaveLength(16);
  });
});

describe("a stranger's request: one frame, one octet back", () => {
  beforeEach(() => void vi.useFakeTimers({ toFake: ["setTimeout", "clearTimeout"] }));
  afterEach(() => void vi.useRealTimers());
  const from = {} as Stranger;
  const framed = (text: string | Buffer, length = Buffer.byteLength(text)) => {
    const head = Buffer.alloc(4);
    head.writeUInt32BE(length);
    return Buffer.concat([head, Buffer.from(text)]);
  };

  test.each<[string, Buffer, string]>([
    ["nothing", Buffer.alloc(0), "wait"],
    ["three octets", Buffer.alloc(3), "wait"],
    ["a cut frame", framed("ab", 3), "wait"],
    ["a frame", framed("abc"), "abc"],
    ["the largest", framed("x".repeat(8_192)), "x".repeat(8_192)],
    ["an empty one", Buffer.alloc(4), "refuse"],
    ["one too large, before its body", framed("", 8_193), "refuse"],
    ["an octet behind it", Buffer.concat([framed("abc"), Buffer.of(0)]), "refuse"],
  ])("%s", (_name, bytes, expected) => {
    expect(readFrame(bytes)).toBe(expected);
  });

  function asked(sink: (request: string) => Promise<"kept" | "later">) {
    const [ours, theirs] = duplexPair();
    const taken: string[] = [];
    takeRequest(ours, from, (request) => {
      taken.push(request);
      return sink(request);
    });
    const closed = new Promise<void>((resolve) => ours.once("close", resolve));
    theirs.on("error", () => undefined);
    return { ours, theirs, taken, closed };
  }

  test.each([
    ["kept", 0],
    ["later", 1],
  ] as const)("%s is answered %i, fed whole and octet by octet", async (answer, octet) => {
    for (const size of [100, 1]) {
      const { theirs, taken } = asked(async () => answer);
      const bytes = framed("please");
      for (let at = 0; at < bytes.length; at += size) theirs.write(bytes.subarray(at, at + size));
      const [back] = (await theirs.toArray()) as Buffer[];
      expect([taken, back]).toEqual([["please"], Buffer.of(octet)]);
    }
  });

  test("64 strangers are heard at once, each key once; who ends makes room", async () => {
    const intake = new RequestIntake();
    const come = (fingerprint: string) => {
      const [ours, theirs] = duplexPair();
      const one = { ...from, certificate: { ...from.certificate, fingerprint: fingerprint as Fingerprint } };
      const closed = once(ours, "close");
      intake.take(ours, one, () => new Promise(() => undefined));
      return { theirs, closed };
    };
    const later = async (fingerprint: string) => (await come(fingerprint).theirs.toArray()) as Buffer[];
    const [first] = Array.from({ length: 64 }, (_, n) => come(`${n}`));
    expect(await later("64")).toEqual([Buffer.of(1)]);
    first?.theirs.write(Buffer.alloc(4));
    await first?.closed;
    expect(await later("1")).toEqual([Buffer.of(1)]);
    const { theirs } = come("64");
    expect(theirs.read()).toBeNull();
    expect(await later("65")).toEqual([Buffer.of(1)]);
  });

  test.each<[string, Buffer[], boolean]>([
    ["an empty frame", [Buffer.alloc(4)], false],
    ["a frame over 8 KiB", [framed("", 8_193)], false],
    ["two frames at once", [Buffer.concat([framed("a"), framed("b")])], false],
    ["a second frame", [framed("a"), framed("b")], true],
  ])("%s closes without an answer", async (_name, pieces, heard) => {
    const { theirs, taken, closed } = asked(() => new Promise(() => undefined));
    const back: Buffer[] = [];
    theirs.on("data", (chunk: Buffer) => back.push(chunk));
    for (const piece of pieces) {
      theirs.write(piece);
      await new Promise((done) => setImmediate(done));
    }
    await closed;
    expect([taken.length, back]).toEqual([heard ? 1 : 0, []]);
  });

  test("a sink that fails closes without an answer; half a frame is waited for 5 s", async () => {
    const failing = asked(() => Promise.reject(new Error("disk")));
    failing.theirs.write(framed("a"));
    await failing.closed;
    const slow = asked(async () => "kept");
    slow.theirs.write(Buffer.of(0));
    await new Promise((done) => setImmediate(done));
    vi.advanceTimersByTime(4_999);
    expect(slow.ours.destroyed).toBe(false);
    vi.advanceTimersByTime(1);
    await slow.closed;
    expect(vi.getTimerCount()).toBe(0);
  });

  test("whoever asks hears kept, later, or that none are taken", async () => {
    const ask = (reaction: (theirs: Duplex) => void) => {
      const [ours, theirs] = duplexPair();
      theirs.on("error", () => undefined);
      const answer = handRequest(ours, "please");
      reaction(theirs);
      return answer;
    };
    expect(await ask((theirs) => theirs.write(Buffer.of(0)))).toBe("kept");
    expect(await ask((theirs) => theirs.write(Buffer.of(1)))).toBe("later");
    const [ours, theirs] = duplexPair();
    const refused = handRequest(ours, "please");
    theirs.resume();
    ours.destroy();
    await expect(refused).rejects.toMatchObject({ code: "refused-by-peer" });
    const silent = ask(() => undefined);
    vi.advanceTimersByTime(10_000);
    await expect(silent).rejects.toMatchObject({ code: "refused-by-peer" });
  });
});

describe("TLS sessions for dialling again", () => {
  const kept = (n: number) => ({ session: Buffer.of(n), certificate: {} as never });

  test("each serves once, a newer one takes an older one's place", () => {
    const sessions = new Sessions();
    sessions.put("a", kept(1));
    sessions.put("a", kept(2));
    expect(sessions.take("a")?.session).toEqual(Buffer.of(2));
    expect(sessions.take("a")).toBeUndefined();
  });

  test("a thousand are kept, the oldest goes; clear forgets all", () => {
    const sessions = new Sessions();
    for (let n = 0; n <= 1_000; n += 1) sessions.put(`${n}`, kept(1));
    expect([sessions.take("0"), sessions.take("1") === undefined]).toEqual([undefined, false]);
    sessions.clear();
    expect(sessions.take("5")).toBeUndefined();
  });
});

describe("how a dialled connection's end is read", () => {
  const error = (message: string, code?: string) =>
    Object.assign(new Error(message), code === undefined ? {} : { code });
  const alert = (n: number) => error(`x:SSL alert number ${n}`, "ERR_SSL_TLSV1_ALERT");

  test.each<[string, Error | undefined, boolean, boolean, string, boolean]>([
    ...[42, 43, 44, 45, 46, 48, 49, 116].map((n): [string, Error, boolean, boolean, string, boolean] => [
      `alert ${n} of somebody admitted`,
      alert(n),
      true,
      false,
      "refused-by-peer",
      false,
    ]),
    ...[10, 20, 40, 80, 120].map((n): [string, Error, boolean, boolean, string, boolean] => [
      `alert ${n} of somebody admitted`,
      alert(n),
      true,
      false,
      "handshake-failed",
      true,
    ]),
    ["alert 49 before we admitted anybody: it could be anybody's", alert(49), false, false, "handshake-failed", true],
    ["alert 48 on a resumed session: tried again in full", alert(48), true, true, "handshake-failed", true],
    ["alert 49 on a resumed session", alert(49), true, true, "refused-by-peer", false],
    ["nobody listens", error("x", "ECONNREFUSED"), false, false, "unreachable", true],
    ["no route", error("x", "EHOSTUNREACH"), false, false, "unreachable", true],
    ["a reset", error("x", "ECONNRESET"), true, false, "handshake-failed", true],
    ["a bare end", undefined, true, false, "handshake-failed", true],
  ])("%s", (_name, cause, admitted, resumed, code, temporary) => {
    expect(peerFailure(cause, admitted, resumed)).toMatchObject({ code, temporary });
  });

  test.each<[string, string | undefined, number | undefined]>([
    ["SSL alert number 49", undefined, 49],
    ["x", "ERR_SSL_TLSV1_ALERT_ACCESS_DENIED", 49],
    ["x", "ERR_SSL_TLSV13_ALERT_CERTIFICATE_REQUIRED", 116],
    ["x", "ERR_SSL_SSLV3_ALERT_CERTIFICATE_EXPIRED", 45],
    ["x", "ERR_SSL_TLSV1_ALERT_UNKNOWN_CA", 48],
    ["x", "ERR_SSL_SSLV3_ALERT_UNSUPPORTED_CERTIFICATE", 43],
    ["x", "ERR_SSL_SSLV3_ALERT_BAD_CERTIFICATE", 42],
    ["x", "ERR_SSL_WRONG_VERSION_NUMBER", undefined],
    ["ACCESS_DENIED", "EACCES", undefined],
  ])("%s %s tells of alert %s", (message, code, number) => {
    expect(alertNumber(error(message, code))).toBe(number);
  });
});

describe("the alert that we make ourselves", () => {
  test("has key and IV as RFC 8448 §3 derives them", () => {
    const secret = Buffer.from("b67b7d690cc16c4e75e54213cb2d37b4e9c912bcded9105d42befd59d391ad38", "hex");
    const record = alertRecord("TLS_AES_128_GCM_SHA256", secret, 49);
    const decipher = createDecipheriv(
      "aes-128-gcm",
      Buffer.from("3fce516009c21727d0f2e4e86ee403bc", "hex"),
      Buffer.from("5d313eb2671276ee13000b30", "hex"),
    );
    decipher.setAAD(Buffer.from("1703030013", "hex"));
    decipher.setAuthTag(record?.subarray(-16) ?? Buffer.alloc(16));
    expect(Buffer.concat([decipher.update(record?.subarray(5, -16) ?? Buffer.alloc(0)), decipher.final()])).toEqual(
      Buffer.from([2, 49, 21]),
    );
    expect(record).toHaveLength(24);
  });

  test.each([
    ["TLS_AES_256_GCM_SHA384", "aes-256-gcm", "sha384", 48, 32],
    ["TLS_CHACHA20_POLY1305_SHA256", "chacha20-poly1305", "sha256", 32, 32],
  ] as const)("%s opens with the keys of that suite", (suite, aead, hash, secretBytes, keyBytes) => {
    const secret = Buffer.alloc(secretBytes, 7);
    const expand = (label: string, length: number) => {
      const name = Buffer.from(`tls13 ${label}`);
      const info = Buffer.concat([Buffer.from([0, length, name.length]), name, Buffer.of(0)]);
      return hkdfExpand(hash, secret, info, length);
    };
    const record = alertRecord(suite, secret, 116) ?? Buffer.alloc(24);
    const decipher = createDecipheriv(aead as "aes-256-gcm", expand("key", keyBytes), expand("iv", 12), {
      authTagLength: 16,
    });
    decipher.setAAD(record.subarray(0, 5));
    decipher.setAuthTag(record.subarray(-16));
    expect(Buffer.concat([decipher.update(record.subarray(5, -16)), decipher.final()])).toEqual(
      Buffer.from([2, 116, 21]),
    );
  });

  test("a suite that is not known, and a secret of another length, give none", () => {
    expect(alertRecord("ECDHE-RSA-AES128-GCM-SHA256", Buffer.alloc(32), 49)).toBeUndefined();
    expect(alertRecord("TLS_AES_256_GCM_SHA384", Buffer.alloc(32), 49)).toBeUndefined();
  });

  test("the secret is that of the asked label's line only", () => {
    const line = Buffer.from("SERVER_TRAFFIC_SECRET_0 aabb 0102ff\n");
    expect(keyLogSecret(line, "SERVER_TRAFFIC_SECRET_0")).toEqual(Buffer.from("0102ff", "hex"));
    expect(keyLogSecret(line, "SERVER_TRAFFIC_SECRET")).toBeUndefined();
  });
});

/** HKDF-Expand alone (RFC 5869 §2.3). */
function hkdfExpand(hash: string, prk: Buffer, info: Buffer, length: number): Buffer {
  return createHmac(hash, prk)
    .update(Buffer.concat([info, Buffer.of(1)]))
    .digest()
    .subarray(0, length);
}

describe("the trust part of the configuration", () => {
  test.each<[string, unknown]>([
    ["two selectors in one entry", { allow: [{ identity: "a@b.test", fingerprint: "00" }] }],
    ["an entry of nobody", { block: [{}] }],
    ["an organisation among the allowed", { allow: [{ organisation: "O" }] }],
    ["an identity among the rules", { rules: [{ identity: "a@b.test" }] }],
    ["no protocols at all", { allow: [{ identity: "a@b.test", protocols: [] }] }],
    ["an unknown protocol", { allow: [{ identity: "a@b.test", protocols: ["imap"] }] }],
    ["an anchor without domains", { anchors: [{ name: "a", file: "f", domains: [] }] }],
    ["a word that is none", { allowed: [] }],
    ["otherwise: allow", { otherwise: "allow" }],
  ])("%s is refused", (_name, value) => {
    expect(trustSchema.safeParse(value).success).toBe(false);
  });

  test("nothing said: contacts may come, strangers may ask", () => {
    expect(trustSchema.parse({})).toEqual({
      anchors: [],
      block: [],
      allow: [],
      rules: [],
      revocation: { privateTargets: false },
      otherwise: "contacts",
      requests: { box: true, port: true },
    });
  });
});
