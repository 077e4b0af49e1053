import { createHash, randomBytes } from "node:crypto";
import { link, rm, writeFile } from "node:fs/promises";
import { join } from "node:path";
import { Readable } from "node:stream";
import type { Opener, Sealer } from "../../src/delivery/seals.ts";
import type { Fingerprint, PeerCertificate } from "../../src/pki/certificate.ts";
import { type Identity, parseIdentity } from "../../src/pki/identity.ts";
import { SuiteError } from "../../src/pki/suite-error.ts";
import { parseHead } from "../../src/smime/entity.ts";
import type { Opened } from "../../src/smime/open.ts";

/** As much of a certificate as delivery looks at. */
export function toyCertificate(identity: Identity, generation = 1): PeerCertificate {
  const sha256 = createHash("sha256").update(`${identity} ${generation}`).digest("hex");
  const facts = { sha256, fingerprint: sha256 as Fingerprint, identities: [{ identity, source: "rfc822Name" }] };
  return facts as unknown as PeerCertificate;
}

/**
 * Stands in for smime where its cryptography is not what is tested: one line of JSON, then the entity. Like a real seal it is
 * different each time it is made, and names its signer and its recipient.
 */
export const toySeal: Sealer = {
  async *stream(entity, { from, recipient }) {
    const nonce = randomBytes(8).toString("hex");
    yield Buffer.from(`${JSON.stringify({ signer: from, to: recipient.sha256, nonce })}\n`);
    yield* entity;
  },
  async file({ file, offset, size }, head, target, o, signal) {
    const content = Buffer.alloc(size);
    await file.read(content, 0, size, offset);
    const entity = Buffer.concat([head, content]);
    for await (const piece of toySeal.stream(Readable.from([entity]), o, signal)) await target.writeFile(piece);
    return createHash("sha256").update(entity).digest("hex");
  },
};

/** @param certificate the one that can be opened here */
export function toyOpener(certificate: PeerCertificate): Opener {
  return async (sealed, { expectedSigner, directory, kind }) => {
    const parts: Uint8Array[] = [];
    for await (const part of sealed) parts.push(part);
    const bytes = Buffer.concat(parts);
    const end = bytes.indexOf("\n");
    if (end < 0) throw new SuiteError("seal-malformed", "not a seal", { fault: "peer" });
    const { signer, to } = JSON.parse(bytes.subarray(0, end).toString()) as { signer: string; to: string };
    if (to !== certificate.sha256) throw new SuiteError("seal-not-for-us", "not for us", { fault: "peer" });
    const entity = bytes.subarray(end + 1);
    if (entity.includes("UNREADABLE")) throw new SuiteError("seal-unreadable", "unreadable", { fault: "peer" });
    if (signer !== expectedSigner) throw new SuiteError("seal-wrong-signer", "another's", { fault: "peer" });
    const split = entity.indexOf("\r\n\r\n");
    const kept = kind === "mail" ? entity : entity.subarray(split + 4);
    let path: string | undefined;
    if (kept.length > 65_536) {
      path = join(directory, `${randomBytes(8).toString("hex")}.part`);
      await writeFile(path, kept);
    }
    const opened: Opened = {
      signer: toyCertificate(parseIdentity(signer)),
      signedAt: new Date("2026-11-23T08:59:00Z"),
      digest: createHash("sha256").update(entity).digest("hex"),
      cipher: "toy",
      head: parseHead(entity.subarray(0, split + 2)),
      content: path === undefined ? { bytes: kept } : { path, size: kept.length },
      contentSha256: createHash("sha256").update(kept).digest("hex"),
      async moveTo(target) {
        if (path === undefined) throw new Error("small things are not moved");
        try {
          await link(path, target);
        } catch (cause) {
          throw new SuiteError("conflict", "taken", { fault: "local", cause });
        }
      },
      async [Symbol.asyncDispose]() {
        if (path !== undefined) await rm(path, { force: true });
      },
    };
    return opened;
  };
}
