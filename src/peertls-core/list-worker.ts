import { parentPort, workerData } from "node:worker_threads";
import { parseCertificate } from "../pki/certificate.ts";
import { parseRevocationList } from "../pki/crl.ts";
import { asSuiteError } from "../pki/suite-error.ts";
import { derOf, type ListResult, type ListTask } from "./read-list.ts";

/** Reads one large revocation list, and ends. */
function read({ bytes, signers }: ListTask): ListResult {
  try {
    const list = parseRevocationList(derOf(bytes));
    // What nobody stands for is not worth the memory of the thread that everybody waits for.
    if (!signers.some((der) => list.signedBy(parseCertificate(der)))) return { ok: false, what: "signature" };
    return { ok: true, bytes: list.der, reading: list.reading };
  } catch (error) {
    return { ok: false, what: String(asSuiteError(error).details["what"] ?? "internal") };
  }
}

const result = read(workerData as ListTask);
const buffers = result.ok
  ? [result.bytes, result.reading.table.slots, result.reading.table.issuerOf].flatMap((one) => one?.buffer ?? [])
  : [];
parentPort?.postMessage(result, [...new Set(buffers)] as ArrayBuffer[]);
