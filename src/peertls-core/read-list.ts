import { Worker } from "node:worker_threads";
import type { Certificate } from "../pki/certificate.ts";
import { type ListReading, parseRevocationList, type RevocationList } from "../pki/crl.ts";
import { SuiteError } from "../pki/suite-error.ts";

/** A list of this size is read in some milliseconds; what is larger would keep everybody waiting. */
const INLINE_BYTES = 256 * 1024;

/** What `list-worker.ts` is given. */
export interface ListTask {
  bytes: Uint8Array;
  /** DER of certificates one of which may have signed it. */
  signers: readonly Uint8Array[];
}

/** What `list-worker.ts` answers; the bytes come back. */
export type ListResult =
  | { ok: true; bytes: Uint8Array; reading: ListReading }
  /** Of its SuiteError. */
  | { ok: false; what: string };

/**
 * Reads a list and tries its signature, on a thread of its own if it is large.
 * @param bytes not to be used any more by the caller: it is handed on
 * @throws SuiteError certificate-malformed
 */
export async function readList(bytes: Buffer, signers: readonly Certificate[]): Promise<RevocationList> {
  if (bytes.length <= INLINE_BYTES) {
    const list = parseRevocationList(derOf(bytes));
    signers.some((signer) => list.signedBy(signer));
    return list;
  }
  // What is handed to another thread must not share its memory with anything else.
  const own = bytes.length === bytes.buffer.byteLength ? bytes : new Uint8Array(bytes);
  const result = await onThread({ bytes: own, signers: signers.map(({ der }) => new Uint8Array(der)) });
  if (result.ok) return parseRevocationList(result.bytes, result.reading);
  throw new SuiteError("certificate-malformed", "not a well-formed revocation list", {
    fault: "peer",
    details: { what: result.what },
  });
}

/** Lists come as DER (RFC 5280 §8); some servers send PEM. */
export function derOf(bytes: Uint8Array): Uint8Array {
  if (bytes[0] !== 0x2d) return bytes;
  const text = Buffer.from(bytes.buffer, bytes.byteOffset, bytes.length).toString("latin1");
  const [, body = ""] = /-----BEGIN X509 CRL-----([^-]+)-----END X509 CRL-----/.exec(text) ?? [];
  return new Uint8Array(Buffer.from(body, "base64"));
}

function onThread(task: ListTask): Promise<ListResult> {
  return new Promise((resolve, reject) => {
    const worker = new Worker(new URL("./list-worker.ts", import.meta.url), {
      workerData: task,
      transferList: [task.bytes.buffer as ArrayBuffer],
    });
    worker.unref();
    worker.once("message", resolve);
    worker.once("error", reject);
    worker.once("exit", () => reject(new Error("the thread that reads a revocation list has ended")));
  });
}
