import { type Certificate, parseCertificate } from "../pki/certificate.ts";
import type { TrustAnchor } from "../pki/path.ts";
import { SuiteError } from "../pki/suite-error.ts";
import type { KeptFiles, Refreshed } from "./refreshed.ts";

/** What fetching lists and fetching answers have in common. */
export interface Fetching {
  readonly files: KeptFiles;
  readonly clock: () => Date;
  /** Whether private networks may be asked for what strangers' certificates name. */
  readonly privateTargets: boolean;
  readonly signal: AbortSignal;
  /** 0 … 1, for the spread of refreshes. */
  readonly chance: () => number;
  readonly random: (length: number) => Buffer;
  refreshed(url: string, fetch: () => Promise<Date | undefined | "over">): Refreshed;
  /** Something new is known. */
  changed(): void;
}

/** When what an earlier run kept is asked for anew, at most: not all of it at once. */
export const KEPT_REFRESH_MS = 60_000;

/** Where a certificate stands. */
export interface Above {
  /** The certificate above it in its path. */
  readonly issuer: Certificate;
  readonly anchor: TrustAnchor;
  /** The whole path, leaf first. */
  readonly path: readonly Certificate[];
}

/** What its anchor's CAs are asked by. */
export interface When {
  readonly time: Date;
  /** How long a list or an answer counts past its nextUpdate. */
  readonly graceMs: number;
  /** URLs of lists for certificates that name none. */
  readonly configured: readonly string[];
}

const MAX_URL = 2_048;

export function isFetchable(url: string): boolean {
  return /^https?:\/\//i.test(url) && url.length <= MAX_URL;
}

/** Whether it names a list that can be had: a directory's (ldap) is as good as none. */
export function namesList({ crlUrls }: Certificate): boolean {
  return crlUrls.some(isFetchable);
}

export function doesNotCount(what: string): SuiteError {
  return new SuiteError("certificate-invalid", "what came about revocation does not count", {
    fault: "service",
    details: { what },
  });
}

/** A certificate as it stands in what is kept; `readCertificate` is the counterpart. */
export function certificateText({ der }: Certificate): string {
  return Buffer.from(der).toString("base64");
}

/** @throws SuiteError certificate-malformed */
export function readCertificate(text: string): Certificate {
  return parseCertificate(Buffer.from(text, "base64"));
}
