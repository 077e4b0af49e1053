import type { SignatureDigest } from "./algorithms.ts";
import type { FileLayout, OpenContent } from "./file-layout.ts";

/** What `file-worker.ts` is given. File descriptors are the process's, so that threads share them. */
export type FileJob = HashJob | EncryptJob;

interface Stoppable {
  /** Not 0 any more: the job ends at once, as `stopped`. */
  readonly stop: Int32Array<SharedArrayBuffer>;
  readonly file: OpenContent;
}

/** The hash of `before` and the file. */
export interface HashJob extends Stoppable {
  readonly kind: "hash";
  readonly digest: SignatureDigest;
  readonly before: Uint8Array;
}

/** AES-GCM over some segments of a plaintext, each written as an OCTET STRING. */
export interface EncryptJob extends Stoppable {
  readonly kind: "encrypt";
  readonly key: Uint8Array;
  readonly nonce: Uint8Array;
  readonly layout: FileLayout;
  /** Where the OCTET STRING of segment 0 goes. */
  readonly target: { readonly descriptor: number; readonly offset: number };
  readonly from: number;
  readonly count: number;
}

/** `octets`: the hash, or the tag that `joinedTag` takes. */
export type FileResult =
  | { readonly ok: true; readonly octets: Uint8Array }
  | { readonly ok: false; readonly what: "read" | "write" | "changed" | "stopped"; readonly reason: string };
