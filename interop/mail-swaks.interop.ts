import { readFileSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { afterAll, beforeAll, expect, test } from "vitest";
import { rootOf } from "../src/cli/demo-stage.ts";
import { appPassword, eventOf, localCa, type Pair, run, startPair } from "./pair.ts";

let pair: Pair;
let password: string;

beforeAll(async () => {
  pair = await startPair();
  password = await appPassword(pair.stage, pair.alice);
});

afterAll(() => pair[Symbol.asyncDispose]());

function swaks(how: readonly string[], subject: string, body: string, secret = password) {
  const tls = ["--tls-verify", "--tls-ca-path", localCa(pair.alice)];
  const auth = ["--auth", "PLAIN", "--auth-user", "alice", "--auth-password", secret];
  const mail = ["-f", "alice@alpha.test", "-t", "bob@beta.test", "--header", `Subject: ${subject}`, "--body", body];
  return run("swaks", ["--server", "localhost", "--protocol", "ESMTP", ...how, ...tls, ...auth, ...mail]);
}

const ways: [string, () => string[]][] = [
  ["implicit TLS", () => ["--tls-on-connect", "-p", String(pair.alice.ports["smtps"]?.port)]],
  ["STARTTLS", () => ["--tls", "-p", String(pair.alice.ports["submission"]?.port)]],
];

test.each(ways)(
  "a mail that swaks submits by %s is read opened at Bob's; openssl opens and verifies the kept original",
  async (name, how) => {
    const subject = `Lunch by ${name}`;
    const sent = await swaks(how(), subject, "Shall we meet\nat noon?");
    expect(sent, sent.out + sent.err).toMatchObject({ code: 0 });
    const { stage, bob, alpha } = pair;
    const { item } = await eventOf(stage, bob, "item.received", (one) => one.title === subject);

    const shown = await stage.command(bob, "read", item);
    expect(shown).toContain(`\nSubject: ${subject}\n`);
    expect(shown).toContain("From: alice@alpha.test\n");
    expect(shown).toContain("\n\nShall we meet\nat noon?\n");
    expect(shown).toMatch(/^Seal: sealed, signed by alice@alpha\.test .*aes-256-gcm$/m);
    const raw = await stage.command(bob, "read", item, "--raw");
    expect(raw).toMatch(/^X-SixTalk-Seal: sealed; signer=alice@alpha\.test;/m);

    const sealed = join(stage.folder, `${item}.eml`);
    writeFileSync(sealed, await stage.command(bob, "read", item, "--sealed"));
    expect(readFileSync(sealed, "latin1")).not.toContain("noon");
    const keys = bob.home.keys;
    const own = ["-recip", join(keys, "encryption-1.pem"), "-inkey", join(keys, "encryption-1.key")];
    const opened = await run("openssl", ["cms", "-decrypt", "-in", sealed, ...own]);
    expect(opened.code, opened.err).toBe(0);
    const verified = await run(
      "openssl",
      ["cms", "-verify", "-CAfile", rootOf(alpha.home)],
      Buffer.from(opened.out, "latin1"),
    );
    expect(verified.code, verified.err).toBe(0);
    expect(verified.out).toContain(`Subject: ${subject}`);
    expect(verified.out).toContain("Shall we meet\r\nat noon?");
  },
);

test("swaks with a wrong password is refused with 535, and nothing is sent", async () => {
  const refused = await swaks(ways[0]?.[1]() ?? [], "never", "never", "wrong-password");
  expect(refused.code).not.toBe(0);
  expect(refused.out).toContain("535 5.7.8");
  expect(await pair.stage.ask<unknown[]>(pair.alice, "queue")).toEqual([]);
});

test("swaks is told at once that nobody of that name is known", async () => {
  const args = [
    "--server",
    "localhost",
    ...(ways[0]?.[1]() ?? []),
    "--tls-verify",
    "--tls-ca-path",
    localCa(pair.alice),
  ];
  const auth = ["--auth", "PLAIN", "--auth-user", "alice", "--auth-password", password];
  const refused = await run("swaks", [...args, ...auth, "-f", "alice@alpha.test", "-t", "nobody@beta.test"]);
  expect(refused.out).toContain("550 5.1.1");
  expect(refused.code).not.toBe(0);
});
