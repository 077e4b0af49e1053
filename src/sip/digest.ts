import { createHash, createHmac, timingSafeEqual } from "node:crypto";
import type { OwnerAccess } from "../delivery/owner-access.ts";
import type { SipHeader, SipRequest } from "./grammar.ts";
import { parseAuthParameters } from "./headers.ts";

const NONCE_SECONDS = 300;
const WINDOW = 64;
const MAX_NONCES = 1_000;

/** Programs that give up at a challenge by an algorithm that they do not know, whatever stands beside it. */
const MD5_ALONE = /^baresip v[0-2]\./;

export type DigestResult = { ok: true; app: string } | { ok: false; stale: boolean };

/** HTTP digest for SIP with SHA-256, and with MD5 for old programs (RFC 3261 §22, RFC 8760). */
export class Digest {
  readonly #access: OwnerAccess;
  readonly #key: Buffer;
  readonly #random: (length: number) => Buffer;
  readonly #clock: () => Date;
  readonly #seen = new Map<string, { highest: number; bits: bigint }>();

  constructor(access: OwnerAccess, random: (length: number) => Buffer, clock: () => Date) {
    this.#access = access;
    this.#random = random;
    this.#key = random(32);
    this.#clock = clock;
  }

  /**
   * The challenges, strongest first (RFC 8760 §2.3). A nonce is good for 300 s and on its flow alone.
   * @param program what the request's User-Agent says
   */
  challenge(flow: string, stale: boolean, program = ""): SipHeader[] {
    const issued = Math.floor(this.#clock().getTime() / 1000);
    // Every challenge has its own nonce: a program that starts counting anew must not meet its old count.
    const nonce = this.#nonce(flow, issued, this.#random(4).toString("hex"));
    const algorithms = MD5_ALONE.test(program) ? ["MD5"] : ["SHA-256", "MD5"];
    return algorithms.map((algorithm) => ({
      name: "www-authenticate",
      value: `Digest realm="${this.#access.realm}", qop="auth", nonce="${nonce}", algorithm=${algorithm}${stale ? ", stale=true" : ""}`,
    }));
  }

  check(request: SipRequest, flow: string): DigestResult {
    for (const header of request.headers) {
      if (header.name !== "authorization" && header.name !== "proxy-authorization") continue;
      const { scheme, parameters } = parseAuthParameters(header.value);
      if (scheme !== "digest" || parameters.get("realm") !== this.#access.realm) continue;
      return this.#judge(request.method, parameters, flow);
    }
    return { ok: false, stale: false };
  }

  #judge(method: string, given: ReadonlyMap<string, string>, flow: string): DigestResult {
    const nonce = given.get("nonce") ?? "";
    const issued = Number.parseInt(nonce.slice(0, 8), 16);
    if (!Number.isFinite(issued) || !equal(nonce, this.#nonce(flow, issued, nonce.slice(8, 16))))
      return { ok: false, stale: nonce !== "" };
    if (this.#clock().getTime() / 1000 - issued > NONCE_SECONDS) return { ok: false, stale: true };
    const algorithm = (given.get("algorithm") ?? "MD5").toUpperCase();
    if (algorithm !== "SHA-256" && algorithm !== "MD5") return { ok: false, stale: false };
    const hash = (text: string) =>
      createHash(algorithm === "MD5" ? "md5" : "sha256")
        .update(text, "utf8")
        .digest("hex");
    const qop = given.get("qop");
    const nc = given.get("nc") ?? "";
    if (qop !== "auth" || !/^[0-9a-fA-F]{8}$/.test(nc)) return { ok: false, stale: false };
    const ha2 = hash(`${method}:${given.get("uri") ?? ""}`);
    const response = (given.get("response") ?? "").toLowerCase();
    const app = this.#access
      .ha1s(algorithm)
      .find(({ ha1 }) => equal(response, hash(`${ha1}:${nonce}:${nc}:${given.get("cnonce") ?? ""}:auth:${ha2}`)));
    if (app === undefined) return { ok: false, stale: false };
    if (!this.#fresh(nonce, Number.parseInt(nc, 16))) return { ok: false, stale: true };
    return { ok: true, app: app.id };
  }

  /** Each nonce count serves once; they may come out of order, up to 64 behind the highest. */
  #fresh(nonce: string, nc: number): boolean {
    const seen = this.#seen.get(nonce) ?? { highest: 0, bits: 0n };
    if (nc > seen.highest) {
      seen.bits = ((seen.bits << BigInt(Math.min(nc - seen.highest, WINDOW))) | 1n) & ((1n << BigInt(WINDOW)) - 1n);
      seen.highest = nc;
    } else {
      const behind = seen.highest - nc;
      if (behind >= WINDOW || (seen.bits >> BigInt(behind)) & 1n) return false;
      seen.bits |= 1n << BigInt(behind);
    }
    this.#seen.delete(nonce);
    this.#seen.set(nonce, seen);
    const oldest = this.#seen.keys().next();
    if (this.#seen.size > MAX_NONCES && !oldest.done) this.#seen.delete(oldest.value);
    return true;
  }

  #nonce(flow: string, issued: number, salt: string): string {
    const head = issued.toString(16).padStart(8, "0") + salt;
    return head + createHmac("sha256", this.#key).update(`${head}|${flow}`).digest("hex").slice(0, 32);
  }
}

function equal(a: string, b: string): boolean {
  const left = Buffer.from(a);
  const right = Buffer.from(b);
  return left.length === right.length && timingSafeEqual(left, right);
}
