import type { Certificate, Fingerprint } from "../pki/certificate.ts";
import type { CrlReason } from "../pki/distribution-point.ts";
import type { Register, Registered } from "./register.ts";
import type { IssueRequest } from "./rules.ts";

/** Who issues the domain's certificates: its own CA, or another one that it is the registration authority of. */
export interface Authority {
  readonly register: Register;
  /** What clients are told to build paths with: issuing CAs, the one in force first, then the root. */
  readonly chain: readonly Certificate[];
  /** Why nothing can be issued now; undefined: it can. */
  readonly fault: string | undefined;
  /** False where whoever issues has to revoke, too, and this server can only block the key. */
  readonly revokesUpstream: boolean;
  /** Whether `issue` would, without doing it. @throws SuiteError as `issue` */
  check(request: IssueRequest): void;
  /**
   * Register and audit are durable before it resolves. The same request within 24 h gets the same certificate.
   * @throws SuiteError syntax (`weak-key`), conflict (`key-in-use`), limit-exceeded (`policy`), store-failed; `upstream`
   */
  issue(request: IssueRequest, signal: AbortSignal): Promise<{ registered: Registered; repeated: boolean }>;
  /**
   * Takes a certificate back, at once in the list and in OCSP. A revoked key is nobody's any more.
   * @returns false if it is revoked already @throws SuiteError not-found, store-failed
   */
  revoke(serial: string, reason: CrlReason, by: string): boolean;
  /** The newest revocation list of an issuer, of the one in force if none is named; undefined if it is not ours. */
  crl(issuer?: Fingerprint): { der: Uint8Array; number: number; nextUpdate: Date } | undefined;
  /** Answers an OCSP request (RFC 6960). */
  ocsp(request: Uint8Array): OcspReply;
  /** Signs the lists that are older than an hour. @throws SuiteError store-failed; then the old one serves until its nextUpdate */
  signLists(): void;
  close(): void;
}

/** @param maxAge how long the answer may be kept by whoever asked; undefined: not at all */
export interface OcspReply {
  der: Buffer;
  maxAge?: number;
}
