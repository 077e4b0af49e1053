import { hash } from "node:crypto";
import { Worker } from "node:worker_threads";
import type { Digest } from "../pki/algorithm.ts";
import { p12Cancelled } from "./pkcs12-failure.ts";

/** What the derived octets are for (RFC 7292 appendix B.3). */
export const pkcs12Purpose = { key: 1, iv: 2, mac: 3 } as const;

/** What `pkcs12-kdf-worker.ts` is given. */
export interface Pkcs12Derivation {
  readonly digest: Digest;
  readonly purpose: 1 | 2 | 3;
  /** BMPString with its two zero octets. */
  readonly passphrase: Uint8Array;
  readonly salt: Uint8Array;
  readonly iterations: number;
  readonly length: number;
}

/** So many rounds take some milliseconds; more of them get a thread of their own. */
const inlineIterations = 4096;

/**
 * As `derivePkcs12Here`, without keeping the event loop from its work. Aborting ends the thread.
 * @throws SuiteError cancelled
 */
export async function derivePkcs12(o: Pkcs12Derivation, signal?: AbortSignal): Promise<Buffer> {
  if (signal?.aborted === true) throw p12Cancelled(signal);
  if (o.iterations <= inlineIterations) return derivePkcs12Here(o);
  const worker = new Worker(new URL("./pkcs12-kdf-worker.ts", import.meta.url), { workerData: o });
  const { promise, resolve, reject } = Promise.withResolvers<Buffer>();
  worker.once("message", (octets: Uint8Array) => resolve(Buffer.from(octets)));
  worker.once("error", reject);
  worker.once("exit", () => reject(new Error("the thread that derives a key has ended")));
  const onAbort = () => {
    if (signal !== undefined) reject(p12Cancelled(signal));
    void worker.terminate();
  };
  signal?.addEventListener("abort", onAbort, { once: true });
  try {
    return await promise;
  } finally {
    signal?.removeEventListener("abort", onAbort);
  }
}

/** The derivation of RFC 7292 appendix B.2. */
export function derivePkcs12Here({ digest, purpose, passphrase, salt, iterations, length }: Pkcs12Derivation): Buffer {
  const block = digest === "sha384" || digest === "sha512" ? 128 : 64;
  const input = Buffer.concat([repeated(salt, block), repeated(passphrase, block)]);
  const diversifier = Buffer.alloc(block, purpose);
  const derived: Buffer[] = [];
  for (let have = 0; have < length; ) {
    let octets = hash(digest, Buffer.concat([diversifier, input]), "buffer");
    for (let round = 1; round < iterations; round++) octets = hash(digest, octets, "buffer");
    derived.push(octets);
    have += octets.length;
    const addend = repeated(octets, block).subarray(0, block);
    for (let at = 0; at < input.length; at += block) addOnePlus(input.subarray(at, at + block), addend);
  }
  return Buffer.concat(derived).subarray(0, length);
}

/** As often as it takes to fill whole blocks; nothing stays nothing. */
function repeated(octets: Uint8Array, block: number): Buffer {
  const filled = Buffer.alloc(block * Math.ceil(octets.length / block));
  if (octets.length > 0) filled.fill(octets);
  return filled;
}

/** target = target + addend + 1, as big-endian numbers, the carry dropped. */
function addOnePlus(target: Buffer, addend: Buffer): void {
  let carry = 1;
  for (let i = target.length - 1; i >= 0; i--) {
    carry += (target[i] ?? 0) + (addend[i] ?? 0);
    target[i] = carry & 0xff;
    carry >>= 8;
  }
}
