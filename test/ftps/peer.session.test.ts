import { createHash, randomBytes } from "node:crypto";
import { afterAll, beforeAll, expect, test } from "vitest";
import { temporaryFolder } from "../support/openssl.ts";
import { type FileNode, FileWorld, pieces, startFileNode } from "./file-node.ts";

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

test("a file of several megabytes arrives equal, sealed on the way, and the sender's receipt says delivered", async () => {
  const bytes = randomBytes(7_000_003);
  const item = await alice.ftps.send({ to: [bob.person.identity], name: "film.mkv", source: pieces(bytes) });
  expect(await alice.outbox.settled(item, AbortSignal.timeout(15_000))).toBe("delivered");
  const [stored] = await bob.store.items({ box: "inbox", kind: "file" });
  expect(stored).toMatchObject({ from: alice.person.identity, fileName: "film.mkv", size: bytes.length });
  expect(stored?.protection).toMatchObject({ sealed: true, signer: alice.person.auth.certificate.fingerprint });
  const hash = createHash("sha256");
  if (stored !== undefined) for await (const chunk of bob.store.openItem(stored)) hash.update(chunk as Buffer);
  expect(hash.digest("hex")).toBe(createHash("sha256").update(bytes).digest("hex"));
});
