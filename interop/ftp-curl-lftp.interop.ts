import { createHash, randomBytes } from "node:crypto";
import { readFileSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { afterAll, beforeAll, expect, test } from "vitest";
import { appPassword, eventOf, localCa, type Pair, run, startPair } from "./pair.ts";

let pair: Pair;
let password: string;

beforeAll(async () => {
  pair = await startPair();
  password = await appPassword(pair.stage, pair.alice);
});

afterAll(() => pair[Symbol.asyncDispose]());

const sha256 = (bytes: Buffer | string) => createHash("sha256").update(bytes).digest("hex");
const port = (of: { ports: Record<string, { port: number }> }) => String(of.ports["ftp"]?.port);

function curl(...args: string[]) {
  const tls = ["-sS", "--ssl-reqd", "--cacert", localCa(pair.alice), "-u", `alice:${password}`];
  return run("curl", [...tls, ...args]);
}

function lftp(commands: string) {
  const tls = `set ssl:ca-file ${localCa(pair.alice)}; set ftp:ssl-force yes; set ftp:ssl-protect-data yes; set cmd:fail-exit yes; set net:max-retries 1`;
  return run("lftp", ["-c", `${tls}; open -u alice,${password} -p ${port(pair.alice)} localhost; ${commands}`]);
}

const programs: [string, (file: string) => Promise<{ code: number | null; out: string; err: string }>][] = [
  ["curl", (file) => curl("-T", file, `ftp://localhost:${port(pair.alice)}/peers/bob@beta.test/`)],
  ["lftp", (file) => lftp(`cd /peers/bob@beta.test; put ${file}`)],
];

test.each(programs)(
  "what %s puts into /peers/bob@beta.test/ arrives at Bob's, sealed, and equal",
  async (name, put) => {
    const { stage, bob } = pair;
    const file = join(stage.folder, `by ${name}.bin`.replace(" ", "-"));
    const marker = "this-must-not-be-seen-on-the-wire";
    const bytes = Buffer.concat([Buffer.from(marker.repeat(100)), randomBytes(3_000_000)]);
    writeFileSync(file, bytes);
    const done = await put(file);
    expect(done, done.out + done.err).toMatchObject({ code: 0 });

    const { item, sealed } = await eventOf(stage, bob, "item.received", (one) => one.title === `by-${name}.bin`);
    expect(sealed).toBe(true);
    const raw = await run(process.execPath, ["bin/sixtalk.js", "--home", bob.home.directory, "read", item, "--raw"]);
    expect(sha256(Buffer.from(raw.out, "latin1"))).toBe(sha256(bytes));
    const original = await run(process.execPath, [
      "bin/sixtalk.js",
      "--home",
      bob.home.directory,
      "read",
      item,
      "--sealed",
    ]);
    expect(original.out.length).toBeGreaterThan(bytes.length);
    expect(original.out).not.toContain(marker);
  },
);

test("curl and lftp get a received file back from /inbox, and both list it", async () => {
  const { stage, alice, bob } = pair;
  const file = join(stage.folder, "answer.bin");
  const bytes = randomBytes(1_000_000);
  writeFileSync(file, bytes);
  await stage.command(bob, "file", "alice@alpha.test", file);
  await eventOf(stage, alice, "item.received", (one) => one.title === "answer.bin");
  const path = "/inbox/bob@beta.test/answer.bin";
  const listed = await lftp("cls -l /inbox/bob@beta.test/");
  expect(listed.out + listed.err).toContain("answer.bin");
  const listing = await curl(`ftp://localhost:${port(alice)}/inbox/bob@beta.test/`);
  expect(listing.out).toContain("answer.bin");
  const got = await curl(`ftp://localhost:${port(alice)}${path}`);
  expect(sha256(Buffer.from(got.out, "latin1"))).toBe(sha256(bytes));
  const copy = join(stage.folder, "copy.bin");
  expect(await lftp(`get ${path} -o ${copy}`)).toMatchObject({ code: 0 });
  expect(sha256(readFileSync(copy))).toBe(sha256(bytes));
});

test("neither without TLS nor with a wrong password does anybody get in", async () => {
  const plain = await run("curl", ["-sS", "-u", `alice:${password}`, `ftp://localhost:${port(pair.alice)}/`]);
  expect(plain.code).not.toBe(0);
  const wrong = await run("curl", [
    "-sS",
    "--ssl-reqd",
    "--cacert",
    localCa(pair.alice),
    "-u",
    "alice:wrong",
    `ftp://localhost:${port(pair.alice)}/`,
  ]);
  expect(wrong.code).toBe(67);
});

test("a file for somebody whom nobody knows is refused, not swallowed", async () => {
  const refused = await curl("-T", "package.json", `ftp://localhost:${port(pair.alice)}/peers/nobody@beta.test/`);
  expect(refused.code).not.toBe(0);
  expect(await pair.stage.ask<unknown[]>(pair.alice, "queue")).toEqual([]);
});
