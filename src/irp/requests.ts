import { type Certificate, parseCertificate, peerCertificate } from "../pki/certificate.ts";
import { parseCsr } from "../pki/csr.ts";
import { type Identity, identityDomain, parseIdentity } from "../pki/identity.ts";
import { SuiteError } from "../pki/suite-error.ts";
import type { DirectoryCaller, EnrolDirectory, KeyBackups } from "./directory.ts";
import type { CertificateFacts, CertificateStatus, Reply, Request } from "./messages.ts";
import type { Registered } from "./register.ts";
import { type Applicant, type Enrolled, isAdministrator, type Registration } from "./registration.ts";

export interface RequestServices {
  domain: string;
  registration: Registration;
  directory?: EnrolDirectory;
  backups?: KeyBackups;
  clock: () => Date;
}

/** What a caller who has proven who he is may ask (irp.md §2.3). */
export type ReadyRequest = Exclude<Request, { type: "hello" | "starttls" | "auth" | "cacerts" | "crl" }>;

const MAX_LISTED = 200;

/** Answers one request by right. @param observed the caller's address @throws SuiteError */
export async function answerReady(
  request: ReadyRequest,
  applicant: Applicant,
  observed: string,
  o: RequestServices,
  signal: AbortSignal,
): Promise<Reply> {
  const { registration } = o;
  switch (request.type) {
    case "csr":
      return enrolledReply(await registration.enrol(applicant, request.kind, request.der, request.label, signal), o);
    case "pending":
      return enrolledReply(await registration.pending(applicant, request.ref, signal), o);
    case "renew":
      return enrolledReply(await registration.renew(applicant, request.kind, request.mode, request.der, signal), o);
    case "revoke":
      await registration.revoke(applicant, request.serial, request.reason);
      return { type: "ok" };
    default:
      await registration.admit(applicant);
      return answerAdmitted(request, applicant, observed, o, signal);
  }
}

async function answerAdmitted(
  request: Exclude<ReadyRequest, { type: "csr" | "pending" | "renew" | "revoke" }>,
  applicant: Applicant,
  observed: string,
  o: RequestServices,
  signal: AbortSignal,
): Promise<Reply> {
  if (request.type === "status") return statusReply(request, o);
  const caller = callerOf(applicant);
  switch (request.type) {
    case "certs":
      return { type: "certs", certs: await certificates(request, applicant, o, signal) };
    case "getCert":
      return certReply(await certificate(request, applicant, o, signal), o.clock());
    case "putCert":
      await offered(o.directory?.putCertificate?.bind(o.directory))(bySca(caller), ownCertificates(request, caller));
      return { type: "ok" };
    case "p12s":
      return { type: "p12s", versions: await backups(o).versions(caller) };
    case "putP12":
      return { type: "ok", version: await backups(o).put(caller, request.bytes) };
    case "getP12": {
      const { version, recovery } = request;
      return { type: "p12", version, bytes: await backups(o).get(caller, version, recovery) };
    }
    case "users": {
      const { type: _, ...asked } = request;
      return { type: "users", ...(await offered(o.directory?.users?.bind(o.directory))(caller, asked)) };
    }
    case "getUser":
      return { type: "user", ...(await offered(o.directory?.user?.bind(o.directory))(caller, request.key, signal)) };
    case "putUser": {
      const { type: _, ...put } = request;
      return { type: "ok", ...(await offered(o.directory?.putUser?.bind(o.directory))(caller, put)) };
    }
    case "getAddr": {
      const found = await offered(o.directory?.addresses?.bind(o.directory))(caller, request.key, signal);
      return { type: "addr", ...found };
    }
    case "putAddr": {
      const put = await offered(o.directory?.putAddresses?.bind(o.directory))(bySca(caller), request.jws);
      return { type: "ok", ...put, observed };
    }
    case "presence": {
      const put = await offered(o.directory?.putPresence?.bind(o.directory))(bySca(caller), request.jws);
      return { type: "ok", ...put, observed };
    }
  }
}

/** As it is told to clients. */
export function certReply(registered: Registered, now: Date): Reply & { type: "cert" } {
  const certificates = [registered.certificate, ...registered.chain].map((one) => Buffer.from(one.der));
  return { type: "cert", ...factsOf(registered, now), certificates };
}

function enrolledReply(enrolled: Enrolled, { clock }: RequestServices): Reply {
  if (enrolled.state === "pending") return { type: "pending", ref: enrolled.ref, retry: enrolled.retrySeconds };
  return certReply(enrolled.registered, clock());
}

function factsOf(registered: Registered, now: Date): CertificateFacts {
  const { kind, serial, renewAfter } = registered;
  const { notAfter } = registered.certificate.validity;
  return {
    ...{ kind, serial, notAfter: seconds(notAfter), renewAfter: seconds(renewAfter) },
    status: statusOf(registered, now),
  };
}

function statusOf({ revoked, certificate }: Registered, now: Date): CertificateStatus {
  if (revoked !== undefined) return "revoked";
  return certificate.validity.notAfter < now ? "expired" : "good";
}

function statusReply({ issuer, serial }: Request & { type: "status" }, o: RequestServices): Reply {
  const { register } = o.registration.authority;
  const registered = register.issuerOf(serial) === issuer ? register.find(serial) : undefined;
  if (registered === undefined) return { type: "status", state: "unknown" };
  const state = statusOf(registered, o.clock());
  const { revoked } = registered;
  if (revoked === undefined) return { type: "status", state };
  return { type: "status", state, at: seconds(revoked.at), reason: revoked.reason };
}

async function certificates(
  { kind, status, user }: Request & { type: "certs" },
  applicant: Applicant,
  o: RequestServices,
  signal: AbortSignal,
): Promise<CertificateFacts[]> {
  const identity = await visible(user, applicant, o, signal);
  const now = o.clock();
  return o.registration.authority.register
    .list({ identity, limit: MAX_LISTED, ...(kind === undefined ? {} : { kind }) })
    .map((registered) => factsOf(registered, now))
    .filter((facts) => status === undefined || facts.status === status);
}

/** By hash, or the newest of a kind. */
async function certificate(
  { sha256, kind, user }: Request & { type: "getCert" },
  applicant: Applicant,
  o: RequestServices,
  signal: AbortSignal,
): Promise<Registered> {
  const identity = await visible(user, applicant, o, signal);
  const found = o.registration.authority.register
    .list({ identity, limit: MAX_LISTED, ...(kind === undefined ? {} : { kind }) })
    .find((one) => (sha256 === undefined ? one.revoked === undefined : one.certificate.sha256 === sha256));
  if (found === undefined) throw new SuiteError("not-found", "there is no such certificate", { fault: "peer" });
  return found;
}

/** Whose certificates are asked for: one's own, or those of a person whose record the caller may see. @throws SuiteError not-found */
async function visible(
  user: string | undefined,
  applicant: Applicant,
  o: RequestServices,
  signal: AbortSignal,
): Promise<Identity> {
  const own = applicant.account.identity;
  if (user === undefined) return own;
  const unknown = (cause?: unknown) => new SuiteError("not-found", "unknown or not visible", { fault: "peer", cause });
  let identity: Identity;
  try {
    identity = parseIdentity(user.includes("@") ? user : `${user}@${o.domain}`);
  } catch (cause) {
    throw unknown(cause);
  }
  if (identity === own || isAdministrator(applicant)) return identity;
  if (identityDomain(identity) !== o.domain || o.directory?.user === undefined) throw unknown();
  await o.directory.user(callerOf(applicant), identity, signal).catch((cause: unknown) => {
    throw cause instanceof SuiteError && cause.code === "unknown-recipient" ? unknown(cause) : cause;
  });
  return identity;
}

/** A certificate of another CA: it names the caller, and the request proves that he has its key. */
function ownCertificates(
  { certificates: ders, csr }: Request & { type: "putCert" },
  caller: DirectoryCaller,
): Certificate[] {
  try {
    const parsed = ders.map((der) => parseCertificate(der));
    const [leaf] = parsed;
    if (leaf !== undefined && leaf.fingerprint === parseCsr(csr).fingerprint) {
      if (peerCertificate(leaf).identities.some(({ identity }) => identity === caller.identity)) return parsed;
      throw new SuiteError("forbidden", "the certificate names somebody else", { fault: "peer" });
    }
  } catch (cause) {
    if (cause instanceof SuiteError && cause.code === "forbidden") throw cause;
    throw badCsr(cause);
  }
  throw badCsr();
}

function badCsr(cause?: unknown): SuiteError {
  return new SuiteError("syntax", "the request does not prove the certificate's key", {
    fault: "peer",
    cause,
    details: { code: "bad-csr" },
  });
}

function callerOf({ account: { identity }, by }: Applicant): DirectoryCaller {
  if (by.method === "code" || by.method === "registrar")
    throw new SuiteError("forbidden", "a code is for the first certificate of a device", { fault: "peer" });
  return by.method === "certificate"
    ? { identity, by: "sca", fingerprint: by.certificate.fingerprint }
    : { identity, by: "upa" };
}

function bySca(caller: DirectoryCaller): DirectoryCaller {
  if (caller.by === "sca") return caller;
  throw new SuiteError("forbidden", "each device speaks for itself, by its certificate", { fault: "peer" });
}

function backups({ backups: kept }: RequestServices): KeyBackups {
  return kept ?? offered<KeyBackups>(undefined);
}

/** @throws SuiteError forbidden (`policy`) for what this server does not offer */
function offered<T>(method: T | undefined): T {
  if (method !== undefined) return method;
  throw new SuiteError("forbidden", "this server does not offer that", { fault: "peer", details: { code: "policy" } });
}

function seconds(time: Date): number {
  return Math.floor(time.getTime() / 1000);
}
