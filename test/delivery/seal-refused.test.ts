import { randomBytes } from "node:crypto";
import { expect, test } from "vitest";
import { noCut } from "../../src/delivery/cut-point.ts";
import { makeInbox } from "../../src/delivery/inbox.ts";
import { smimeOpener } from "../../src/delivery/sealing.ts";
import { openStore } from "../../src/delivery/store.ts";
import { systemTime } from "../../src/delivery/time.ts";
import { peerCertificate } from "../../src/pki/certificate.ts";
import { recordLog } from "../support/record-log.ts";
import { bytesOf, entityTo, flipped, Pieces, sealWorld } from "../support/smime.ts";
import { temporaryFolder } from "../support/tmp.ts";
import { nextEvent } from "./party.ts";

const never = new AbortController().signal;
using world = sealWorld({ encryptionKey: "ec" });
const { alice, bob, mallory, domain } = world;
const sealed = (signer = alice.auth) =>
  bytesOf(world.seal(new Pieces(entityTo(bob.identity, "the secret text")), { signer }));

test.each<[string, string, () => Promise<Buffer>]>([
  [
    "a seal with one bit changed",
    "seal-unreadable",
    async () => {
      const bytes = await sealed();
      return flipped(bytes, bytes.length - 60);
    },
  ],
  ["a seal of another signer than the peer", "seal-wrong-signer", () => sealed(mallory.auth)],
  ["a seal that an unknown root certifies", "seal-untrusted", () => sealed(domain.bad("untrusted", alice.identity))],
])("%s is refused by name in error, log and event, and nothing of it stays", async (_name, code, made) => {
  await using folder = await temporaryFolder();
  const log = recordLog();
  const store = await openStore({
    directory: folder.path,
    time: systemTime(),
    random: randomBytes,
    log,
    cut: noCut,
    minFreeBytes: 0,
  });
  try {
    const open = smimeOpener({
      keys: () => [bob.encryption],
      anchorsFor: () => [domain.anchor],
      addressees: [bob.identity],
      clock: () => new Date(),
    });
    const certificate = peerCertificate(alice.auth.certificate);
    const told = nextEvent(store, (body) => body.type === "seal.refused");
    const arrival = {
      kind: "file" as const,
      peer: { identity: alice.identity, fingerprint: certificate.fingerprint, certificate },
      source: new Pieces(await made(), 1_000),
      maxBytes: 1_000_000,
      messageId: "one",
    };
    await expect(makeInbox({ store, open }).receiveSealed(arrival, never)).rejects.toMatchObject({ code });
    const { fingerprint } = certificate;
    expect((await told).body).toEqual({ type: "seal.refused", peer: alice.identity, fingerprint, kind: "file", code });
    expect(log.lines.filter((line) => line.level === "warn")).toEqual([
      {
        level: "warn",
        message: "what a peer brought was refused",
        fields: { peer: alice.identity, fingerprint, kind: "file", code },
      },
    ]);
    expect(JSON.stringify(log.lines)).not.toContain("secret");
    expect(await store.items()).toEqual([]);
  } finally {
    await store.close();
  }
});
