import { mkdtempSync, readdirSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { peerCertificate } from "../../src/pki/certificate.ts";
import type { Identity } from "../../src/pki/identity.ts";
import { validatePath } from "../../src/pki/path.ts";
import { asSuiteError, type SuiteError } from "../../src/pki/suite-error.ts";
import { FailureBudget } from "../../src/smime/failure.ts";
import { Keyring } from "../../src/smime/keyring.ts";
import { type Opened, type OpenOptions, open } from "../../src/smime/open.ts";
import { type SealOptions, seal } from "../../src/smime/seal.ts";
import { makeTestDomain, type TestDomain, type TestPerson } from "./pki.ts";

/** Alice seals for Bob; Mallory is certified by the same CA. */
export interface SealWorld extends Disposable {
  readonly domain: TestDomain;
  readonly alice: TestPerson;
  readonly bob: TestPerson;
  readonly mallory: TestPerson;
  /** Where `.part` files lie; must be empty when nothing is open. */
  readonly directory: string;
  strayFiles(): string[];
  seal(source: AsyncIterable<Uint8Array>, changes?: Partial<SealOptions>): AsyncGenerator<Buffer>;
  open(source: AsyncIterable<Uint8Array>, changes?: Partial<OpenOptions>, signal?: AbortSignal): Promise<Opened>;
}

export function sealWorld(o: { encryptionKey: "rsa" | "ec" }): SealWorld {
  const domain = makeTestDomain({ domain: "example.test" });
  const person = (name: string) => domain.person({ identity: `${name}@example.test`, encryptionKey: o.encryptionKey });
  const [alice, bob, mallory] = [person("alice"), person("bob"), person("mallory")];
  const directory = mkdtempSync(join(tmpdir(), "sixtalk-seal-"));
  return {
    ...{ domain, alice, bob, mallory, directory },
    strayFiles: () => readdirSync(directory),
    seal: (source, changes = {}) =>
      seal(source, {
        signer: alice.auth,
        now: domain.now,
        recipients: [peerCertificate(bob.encryption.certificate)],
        profile: "peer",
        shape: "opaque",
        ...changes,
      }),
    open: (source, changes = {}, signal) =>
      open(
        source,
        {
          keys: new Keyring([bob.encryption]),
          validate: (request) => validatePath({ ...request, anchors: [domain.anchor] }),
          clock: () => domain.now,
          expectedSigner: alice.identity,
          candidates: [],
          addressees: [bob.identity],
          peer: alice.auth.certificate.fingerprint,
          keep: "body",
          directory,
          maxBytes: 100_000_000,
          budget: new FailureBudget(),
          ...changes,
        },
        signal,
      ),
    [Symbol.dispose]: () => rmSync(directory, { recursive: true, force: true }),
  };
}

/** An entity as delivery hands it over: head, blank line, body. */
export function entityTo(to: Identity | string, body: Uint8Array | string, type = "application/octet-stream"): Buffer {
  const head = `From: alice@example.test\r\nTo: ${to}\r\nMessage-ID: <m1@example.test>\r\nContent-Type: ${type}\r\n\r\n`;
  return Buffer.concat([Buffer.from(head), Buffer.from(body)]);
}

/** A source that gives `bytes` in pieces of `size` and counts what was taken. */
export class Pieces implements AsyncIterable<Buffer> {
  readonly #bytes: Uint8Array;
  readonly #size: () => number;
  consumed = 0;

  constructor(bytes: Uint8Array, size: number | (() => number) = Number.POSITIVE_INFINITY) {
    this.#bytes = bytes;
    this.#size = typeof size === "number" ? () => size : size;
  }

  async *[Symbol.asyncIterator](): AsyncGenerator<Buffer> {
    while (this.consumed < this.#bytes.length) {
      const end = Math.min(this.#bytes.length, this.consumed + this.#size());
      const piece = Buffer.from(this.#bytes.subarray(this.consumed, end)); // a buffer of its own, as sockets give
      this.consumed = end;
      yield piece;
    }
  }
}

/** The same sequence of numbers 1…max for the same seed (mulberry32). */
export function pseudoRandom(seed: number, max: number): () => number {
  let state = seed;
  return () => {
    state = (state + 0x6d2b79f5) | 0;
    let t = Math.imul(state ^ (state >>> 15), 1 | state);
    t = (t + Math.imul(t ^ (t >>> 7), 61 | t)) ^ t;
    return 1 + (((t ^ (t >>> 14)) >>> 0) % max);
  };
}

export async function bytesOf(source: AsyncIterable<Uint8Array>): Promise<Buffer> {
  const pieces: Uint8Array[] = [];
  for await (const piece of source) pieces.push(piece);
  return Buffer.concat(pieces);
}

/** What the promise rejects with. */
export async function failureOf(promise: Promise<unknown>): Promise<SuiteError> {
  const outcome = await promise.then(
    () => undefined,
    (thrown: unknown) => ({ thrown }),
  );
  if (outcome === undefined) throw new Error("nothing failed");
  return asSuiteError(outcome.thrown);
}

/** A copy in which one bit of the octet at `index` differs. */
export function flipped(bytes: Buffer, index: number, bit = 0): Buffer {
  const copy = Buffer.from(bytes);
  copy.writeUInt8(copy.readUInt8(index) ^ (1 << bit), index);
  return copy;
}
