import { createHash, randomBytes } from "node:crypto";
import { readdirSync } from "node:fs";
import { readFile, rename, symlink, utimes, writeFile } from "node:fs/promises";
import { join } from "node:path";
import { expect, test } from "vitest";
import { type Dropbox, openDropbox } from "../../src/ftps/dropbox.ts";
import { SuiteError } from "../../src/pki/suite-error.ts";
import { bytesOf, failureOf } from "../support/smime.ts";
import { temporaryFolder } from "../support/tmp.ts";

const never = new AbortController().signal;
const DAY = 86_400_000;
const all = randomBytes(700_000);
const sha256 = (bytes: Buffer) => createHash("sha256").update(bytes).digest("hex");
const broken = () => new SuiteError("cancelled", "cut", { fault: "peer", temporary: true });

async function* pieces(bytes: Buffer, then?: () => unknown): AsyncGenerator<Buffer> {
  for (let at = 0; at < bytes.length; at += 16_384) yield bytes.subarray(at, at + 16_384);
  const failed = await then?.();
  if (failed !== undefined) throw failed;
}

const upload = (box: Dropbox, bytes: AsyncIterable<Uint8Array>, from = 0, name = "a.p7m", peer = "alice") =>
  box.receive({ peer, name, from, bytes, take: (source) => bytesOf(source) });

async function opened(o: { now?: number; free?: () => Promise<number> } = {}) {
  const folder = await temporaryFolder();
  const clock = () => new Date(o.now ?? Date.now());
  return { ...folder, o, clock, box: await openDropbox({ ...o, directory: folder.path, clock }) };
}

const files = (path: string) =>
  readdirSync(path, { recursive: true }).filter((name) => /[0-9a-f]{64}.[0-9a-f]{64}/.test(String(name)));

test("an upload that was cut goes on behind its last byte, also after a restart, and is handed over whole", async () => {
  await using at = await opened();
  expect(await failureOf(upload(at.box, pieces(all.subarray(0, 400_001), broken)))).toMatchObject({
    code: "cancelled",
  });
  const again = await openDropbox({ directory: at.path, clock: at.clock });
  expect(await again.size("alice", "a.p7m")).toBe(400_001);
  expect(await again.hash("alice", "a.p7m", never)).toEqual({
    size: 400_001,
    sha256: sha256(all.subarray(0, 400_001)),
  });
  const whole = await upload(again, pieces(all.subarray(400_001)), 400_001);
  expect(whole.equals(all)).toBe(true);
  expect(files(at.path)).toEqual([]);
});

test("an upload may go on further in front than it came, and what lay behind is gone", async () => {
  await using at = await opened();
  await failureOf(upload(at.box, pieces(Buffer.concat([all.subarray(0, 300_000), randomBytes(50_000)]), broken)));
  await failureOf(upload(at.box, pieces(all.subarray(300_000, 310_000), broken), 300_000));
  expect(await at.box.hash("alice", "a.p7m", never)).toEqual({
    size: 310_000,
    sha256: sha256(all.subarray(0, 310_000)),
  });
  expect(await failureOf(upload(at.box, pieces(all), 310_001))).toMatchObject({ code: "conflict", temporary: true });
  expect((await upload(at.box, pieces(all.subarray(310_000)), 310_000)).equals(all)).toBe(true);
});

test("nothing is there behind which it could go on, and asking for that leaves nothing", async () => {
  await using at = await opened();
  expect(await failureOf(upload(at.box, pieces(all), 5))).toMatchObject({ code: "conflict", temporary: true });
  expect(await at.box.size("alice", "a.p7m")).toBeUndefined();
  expect(await at.box.hash("alice", "a.p7m", never)).toBeUndefined();
});

test("many who ask for a hash at once are all told", async () => {
  await using at = await opened();
  await failureOf(upload(at.box, pieces(all, broken)));
  const told = await Promise.all(Array.from({ length: 9 }, () => at.box.hash("alice", "a.p7m", never)));
  expect(told).toEqual(Array(9).fill({ size: all.length, sha256: sha256(all) }));
});

test("a peer that asks for hash after hash of large uploads keeps nobody else waiting for his", async () => {
  await using at = await opened();
  const large = Buffer.alloc(40_000_000);
  const names = ["1.p7m", "2.p7m", "3.p7m"];
  for (const name of names) await failureOf(upload(at.box, pieces(large, broken), 0, name));
  await failureOf(upload(at.box, pieces(all, broken), 0, "a.p7m", "bob"));
  const told: string[] = [];
  const ask = async (peer: string, name: string) => {
    await at.box.hash(peer, name, never);
    told.push(peer);
  };
  await Promise.all([...names.map((name) => ask("alice", name)), ask("bob", "a.p7m")]);
  expect(told.indexOf("bob")).toBeLessThan(2);
});

test("from the start it begins anew", async () => {
  await using at = await opened();
  await failureOf(upload(at.box, pieces(randomBytes(300_000), broken)));
  expect((await upload(at.box, pieces(all))).equals(all)).toBe(true);
});

test("what was refused is not kept, however far it came", async () => {
  await using at = await opened();
  const refused = new SuiteError("seal-unreadable", "no", { fault: "peer" });
  const take = async (source: AsyncIterable<Uint8Array>) => {
    await bytesOf(source);
    throw refused;
  };
  const one = { peer: "alice", name: "a.p7m", from: 0 };
  expect(await failureOf(at.box.receive({ ...one, bytes: pieces(all), take }))).toBe(refused);
  expect(await failureOf(at.box.receive({ ...one, bytes: pieces(all), take: () => Promise.reject(refused) }))).toBe(
    refused,
  );
  expect(await at.box.size("alice", "a.p7m")).toBeUndefined();
});

test("the file has all bytes once they have ended, and may be moved away", async () => {
  await using at = await opened();
  const target = join(at.path, "taken");
  const take = async (source: AsyncIterable<Uint8Array>, file: string) => {
    await bytesOf(source);
    await rename(file, target);
  };
  await at.box.receive({ peer: "alice", name: "a.p7m", from: 0, bytes: pieces(all), take });
  expect((await readFile(target)).equals(all)).toBe(true);
});

test("each peer has names of its own, and a name leads nowhere else", async () => {
  await using at = await opened();
  await failureOf(upload(at.box, pieces(all, broken), 0, "../../x.p7m", "alice"));
  expect(await at.box.size("bob", "../../x.p7m")).toBeUndefined();
  expect(await at.box.size("alice", "../../x.p7m")).toBe(all.length);
  expect(files(at.path)).toHaveLength(1);
});

test("a newer upload of the same object ends the older, whose connection lives on, and goes on behind it", async () => {
  await using at = await opened();
  const begun = Promise.withResolvers<void>();
  const forever = pieces(all.subarray(0, 500_000), () => {
    begun.resolve();
    return new Promise(() => undefined);
  });
  const older = failureOf(upload(at.box, forever));
  await begun.promise;
  const newer = upload(at.box, pieces(all.subarray(400_000)), 400_000);
  expect(await older).toMatchObject({ code: "cancelled", temporary: true });
  expect((await newer).equals(all)).toBe(true);
});

test("a peer has at most 64 unfinished uploads: the oldest goes; and none for longer than a week", async () => {
  await using at = await opened();
  for (let n = 0; n < 65; n += 1) {
    await failureOf(upload(at.box, pieces(Buffer.from("x"), broken), 0, `${n}.p7m`));
    const [newest] = files(at.path).filter((name) => String(name).endsWith(sha256(Buffer.from(`${n}.p7m`))));
    await utimes(join(at.path, String(newest)), n, Date.now() / 1000 - 1_000 + n);
  }
  expect(await at.box.size("alice", "0.p7m")).toBeUndefined();
  expect(await at.box.size("alice", "1.p7m")).toBe(1);
  expect(files(at.path)).toHaveLength(64);
  at.o.now = Date.now() + 8 * DAY;
  await openDropbox({ directory: at.path, clock: at.clock });
  expect(files(at.path)).toEqual([]);
});

test("what peers who do not come any more have left goes after a week, while others upload", async () => {
  const now = Date.now();
  await using at = await opened({ now });
  await failureOf(upload(at.box, pieces(all, broken), 0, "a.p7m", "gone"));
  at.o.now = now + 7 * DAY + 3_600_000;
  await upload(at.box, pieces(all));
  expect(await at.box.size("gone", "a.p7m")).toBeUndefined();
});

test("what somebody else has put there, a link even, is left alone", async () => {
  await using elsewhere = await temporaryFolder();
  await using at = await opened();
  await writeFile(join(elsewhere.path, "mine"), "");
  await utimes(join(elsewhere.path, "mine"), 0, 0);
  await symlink(elsewhere.path, join(at.path, "link"));
  await writeFile(join(at.path, ".DS_Store"), "");
  const again = await openDropbox({ directory: at.path, clock: at.clock });
  expect((await upload(again, pieces(all))).equals(all)).toBe(true);
  expect(readdirSync(elsewhere.path)).toEqual(["mine"]);
});

test("unfinished uploads of one peer take an eighth of what is free, no more, from the moment they are cut", async () => {
  await using at = await opened({ free: () => Promise.resolve(8 * 1_500_000) });
  for (const name of ["1.p7m", "2.p7m"]) await failureOf(upload(at.box, pieces(all, broken), 0, name));
  expect(files(at.path)).toHaveLength(2);
  await failureOf(upload(at.box, pieces(all, broken), 0, "3.p7m"));
  expect(files(at.path)).toHaveLength(2);
  await failureOf(upload(at.box, pieces(all, broken), 0, "1.p7m", "bob"));
  expect(files(at.path)).toHaveLength(3);
});

test("an unfinished upload can be given up, but not while it runs", async () => {
  await using at = await opened();
  const begun = Promise.withResolvers<void>();
  const end = Promise.withResolvers<Error>();
  const running = failureOf(
    upload(
      at.box,
      pieces(all, () => {
        begun.resolve();
        return end.promise;
      }),
    ),
  );
  await begun.promise;
  expect(await failureOf(at.box.remove("alice", "a.p7m"))).toMatchObject({ code: "busy" });
  end.resolve(broken());
  await running;
  await at.box.remove("alice", "a.p7m");
  expect(await at.box.size("alice", "a.p7m")).toBeUndefined();
});
