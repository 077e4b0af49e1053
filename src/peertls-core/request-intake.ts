import type { Duplex } from "node:stream";
import type { PeerCertificate } from "../pki/certificate.ts";
import type { Identity } from "../pki/identity.ts";
import { SuiteError } from "../pki/suite-error.ts";
import type { PeerAddress } from "./connection.ts";

/** ALPN of the one thing that a stranger may say on a peer port: that he asks to be admitted. */
export const REQUEST_ALPN = "peertls-request/1";
const MAX_REQUEST = 8192;
const SECONDS = 5;
const MAX_OPEN = 64;
const KEPT = 0x00;
const LATER = 0x01;

export interface Stranger {
  certificate: PeerCertificate;
  identity: Identity;
  address: PeerAddress;
}

/** Keeps a request durably. Checks signature and signer itself. `later`: full, or asked too often. */
export type RequestSink = (request: string, from: Stranger) => Promise<"kept" | "later">;

/** Streams of strangers that are open: one a key, and not many in all. */
export class RequestIntake {
  readonly #open = new Set<string>();

  /** As `takeRequest`; who finds no room is to come later. */
  take(stream: Duplex, from: Stranger, sink: RequestSink): void {
    const { fingerprint } = from.certificate;
    if (this.#open.size >= MAX_OPEN || this.#open.has(fingerprint)) {
      stream.on("error", () => undefined);
      stream.end(Buffer.of(LATER), () => stream.destroy());
      return;
    }
    this.#open.add(fingerprint);
    stream.once("close", () => this.#open.delete(fingerprint));
    takeRequest(stream, from, sink);
  }
}

/** Reads one frame (u32 length, then that many bytes), answers one byte, closes. Anything else closes without an answer. */
export function takeRequest(stream: Duplex, from: Stranger, sink: RequestSink): void {
  const parts: Buffer[] = [];
  let size = 0;
  const timer = setTimeout(() => stream.destroy(), SECONDS * 1000);
  stream.on("error", () => undefined);
  stream.once("close", () => clearTimeout(timer));
  stream.on("data", (chunk: Buffer) => {
    parts.push(chunk);
    size += chunk.length;
    const frame = readFrame(Buffer.concat(parts, size)); // what comes behind the frame refuses it, too
    if (frame === "wait") return;
    if (frame === "refuse") return void stream.destroy();
    sink(frame, from).then(
      (answer) => stream.end(Buffer.from([answer === "kept" ? KEPT : LATER])),
      () => stream.destroy(),
    );
  });
}

/** Incremental: feed it what has come so far. */
export function readFrame(bytes: Buffer): "wait" | "refuse" | string {
  if (bytes.length < 4) return "wait";
  const length = bytes.readUInt32BE(0);
  if (length === 0 || length > MAX_REQUEST || bytes.length > 4 + length) return "refuse";
  return bytes.length < 4 + length ? "wait" : bytes.toString("utf8", 4);
}

/** The asking side: sends the frame, waits for the answer. @throws SuiteError refused-by-peer if it closes without one */
export function handRequest(stream: Duplex, request: string): Promise<"kept" | "later"> {
  const body = Buffer.from(request, "utf8");
  const head = Buffer.alloc(4);
  head.writeUInt32BE(body.length);
  return new Promise((resolve, reject) => {
    const timer = setTimeout(() => stream.destroy(), SECONDS * 2000);
    stream.on("error", () => undefined);
    stream.once("data", (answer: Buffer) => {
      resolve(answer[0] === KEPT ? "kept" : "later");
      stream.destroy();
    });
    stream.once("close", () => {
      clearTimeout(timer);
      reject(new SuiteError("refused-by-peer", "the peer takes no requests", { fault: "peer" }));
    });
    stream.write(Buffer.concat([head, body]));
  });
}
