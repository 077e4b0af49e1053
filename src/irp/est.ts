import type { FastifyInstance, FastifyReply, FastifyRequest } from "fastify";
import type { ServiceCaller } from "../peertls-core/service.ts";
import { writeCertsOnly } from "../pki/certs-only.ts";
import { parseCsr } from "../pki/csr.ts";
import * as der from "../pki/der.ts";
import { type Identity, identityDomain } from "../pki/identity.ts";
import type { Log } from "../pki/log.ts";
import { asSuiteError, SuiteError } from "../pki/suite-error.ts";
import { type Authenticating, byCertificate, bySecret } from "./authenticate.ts";
import { namesOf } from "./csr-names.ts";
import type { CertificateKind } from "./messages.ts";
import type { Applicant, Enrolled } from "./registration.ts";
import { errorReply, statusOfError } from "./reply.ts";

export interface EstOptions extends Authenticating {
  /** @param socket `request.raw.socket` */
  callerOf: (socket: object) => ServiceCaller;
  /** Registration authorities of the domain: whoever comes with their certificate may ask for others, named in the request. */
  registrars?: readonly Identity[];
  log: Log;
}

const MAX_BODY = 32_768;
const ISSUE_MS = 60_000;

/**
 * Enrolment over secure transport (RFC 7030), below `/.well-known/est`, without a label or with `auth` or `encryption`: the same
 * service core as IRP's. Base64 goes out as one line with a Content-Length: some clients read nothing else.
 */
export async function est(app: FastifyInstance, o: EstOptions): Promise<void> {
  app.addContentTypeParser("application/pkcs10", { parseAs: "string", bodyLimit: MAX_BODY }, (_request, body, done) =>
    done(null, body),
  );
  app.setErrorHandler((error, request, reply) => refuse(error, request, reply, o));
  for (const label of ["", "/:label"]) {
    const at = `/.well-known/est${label}`;
    app.get(`${at}/cacerts`, async (request, reply) => {
      kindOf(request);
      return pkcs7(reply, writeCertsOnly(o.registration.chain), "");
    });
    app.get(`${at}/csrattrs`, async (request, reply) =>
      base64(reply, csrAttributes(kindOf(request) ?? "auth"), "application/csrattrs"),
    );
    app.post(`${at}/simpleenroll`, async (request, reply) => {
      const kind = kindOf(request) ?? "auth";
      const csr = csrOf(request);
      const applicant = forOther(await applicantOf(request, o), csr, o);
      return enrolled(reply, await o.registration.enrol(applicant, kind, csr, undefined, patience()));
    });
    app.post(`${at}/simplereenroll`, async (request, reply) => {
      const csr = csrOf(request);
      const applicant = await byCertificate(o.callerOf(request.raw.socket), o);
      const { kind, mode } = renewalOf(csr, kindOf(request), applicant, o);
      return enrolled(reply, await o.registration.renew(applicant, kind, mode, csr, patience()));
    });
    app.all(`${at}/serverkeygen`, async () => {
      throw new SuiteError("forbidden", "keys are made where they are used", { fault: "peer" });
    });
    app.all(`${at}/fullcmc`, async (_request, reply) => reply.code(501).type("text/plain").send("not offered\n"));
  }
}

/** Whoever asks does not take the certificate back by hanging up. */
function patience(): AbortSignal {
  return AbortSignal.timeout(ISSUE_MS);
}

/** By password or invitation if the request has one, else by the handshake's certificate. @throws SuiteError auth-failed */
async function applicantOf(request: FastifyRequest, o: EstOptions): Promise<Applicant> {
  const { authorization } = request.headers;
  if (authorization === undefined) {
    const caller = o.callerOf(request.raw.socket);
    if (caller.certificate !== undefined) return byCertificate(caller, o);
    throw new SuiteError("auth-failed", "a certificate, a password or an invitation is needed", { fault: "peer" });
  }
  const { user, secret } = basic(authorization);
  if (!CODE.test(secret)) return bySecret(user, { password: secret }, o);
  // It looks like an invitation; but a password may look like one, too.
  return bySecret(user, { code: secret }, o).catch((error: unknown) => {
    if (error instanceof SuiteError && error.code === "auth-failed" && error.details["retrySeconds"] === undefined)
      return bySecret(user, { password: secret }, o);
    throw error;
  });
}

/** A registrar asks for whom the request names; he vouches for the name, too. */
function forOther(applicant: Applicant, csr: Buffer, { registrars, domain }: EstOptions): Applicant {
  const { account, by } = applicant;
  if (by.method !== "certificate" || registrars?.includes(account.identity) !== true) return applicant;
  const named = namesOf(csr);
  if (named === undefined || named.identity === account.identity) return applicant;
  if (identityDomain(named.identity) !== domain)
    throw new SuiteError("forbidden", "the request names somebody of another domain", { fault: "peer" });
  const { identity, name } = named;
  const { certificate } = by;
  return {
    account: { uuid: "", identity, name },
    by: { method: "registrar", registrar: account.identity, certificate },
  };
}

/** 80 bits in Crockford base32, as typed. */
const CODE = /^\s*([0-9A-Za-z][\s-]*){16}$/;

/** RFC 7617. @throws SuiteError auth-failed */
function basic(authorization: string): { user: string; secret: string } {
  const encoded = /^Basic ([A-Za-z0-9+/]+={0,2})$/i.exec(authorization)?.[1];
  const text = Buffer.from(encoded ?? "", "base64").toString("utf8");
  const colon = text.indexOf(":");
  if (colon <= 0) throw new SuiteError("auth-failed", "wrong user, password or code", { fault: "peer" });
  return { user: text.slice(0, colon), secret: text.slice(colon + 1) };
}

/** What is renewed: as the label says, else what the key is for; without a label a new key is a device's. */
function renewalOf(
  csr: Buffer,
  label: CertificateKind | undefined,
  { by }: Applicant,
  { registration }: EstOptions,
): { kind: CertificateKind; mode: "same" | "new" } {
  let fingerprint: ReturnType<typeof parseCsr>["fingerprint"];
  try {
    ({ fingerprint } = parseCsr(csr));
  } catch (cause) {
    throw badCsr(cause);
  }
  const [known] = registration.authority.register.usesOf(fingerprint);
  const kind = label ?? known?.kind ?? "auth";
  const own = by.method === "certificate" && fingerprint === by.certificate.fingerprint;
  return { kind, mode: own || (kind === "encryption" && known !== undefined) ? "same" : "new" };
}

function kindOf(request: FastifyRequest): CertificateKind | undefined {
  const { label } = request.params as { label?: string };
  if (label === undefined || label === "auth" || label === "encryption") return label;
  throw new SuiteError("not-found", "there is no such label", { fault: "peer" });
}

function csrOf(request: FastifyRequest): Buffer {
  const text = typeof request.body === "string" ? request.body.replace(/\s+/g, "") : "";
  if (!/^[A-Za-z0-9+/]+={0,2}$/.test(text)) throw badCsr();
  return Buffer.from(text, "base64");
}

function badCsr(cause?: unknown): SuiteError {
  return new SuiteError("syntax", "the certificate request cannot be used", {
    fault: "peer",
    cause,
    details: { code: "bad-csr" },
  });
}

/** 200 with the certificate alone (RFC 7030 §4.2.3), or 202 while a person decides. */
function enrolled(reply: FastifyReply, result: Enrolled): FastifyReply {
  if (result.state === "issued") {
    return pkcs7(reply, writeCertsOnly([result.registered.certificate]), "; smime-type=certs-only");
  }
  const told = reply.code(202).header("retry-after", String(result.retrySeconds)).type("text/plain");
  return told.send("the domain's owner has to approve this\n");
}

function pkcs7(reply: FastifyReply, message: Buffer, parameter: string): FastifyReply {
  return base64(reply, message, `application/pkcs7-mime${parameter}`);
}

function base64(reply: FastifyReply, bytes: Buffer, type: string): FastifyReply {
  return reply.header("content-transfer-encoding", "base64").type(type).send(bytes.toString("base64"));
}

/** What a request should be like (RFC 7030 §4.5.2): the kind of key. Names are not asked for: they are the account's. */
function csrAttributes(kind: CertificateKind): Buffer {
  const attribute = (type: string, value: Buffer) => der.sequence(der.oid(type), der.set(value));
  return kind === "auth"
    ? der.sequence(attribute(EC_PUBLIC_KEY, der.oid(PRIME256V1)), der.oid(ECDSA_WITH_SHA256))
    : der.sequence(attribute(RSA_ENCRYPTION, der.integer(3072)), der.oid(SHA256_WITH_RSA));
}

const EC_PUBLIC_KEY = "1.2.840.10045.2.1";
const PRIME256V1 = "1.2.840.10045.3.1.7";
const ECDSA_WITH_SHA256 = "1.2.840.10045.4.3.2";
const RSA_ENCRYPTION = "1.2.840.113549.1.1.1";
const SHA256_WITH_RSA = "1.2.840.113549.1.1.11";

function refuse(thrown: unknown, request: FastifyRequest, reply: FastifyReply, { log }: EstOptions): FastifyReply {
  const own = (thrown as { statusCode?: number }).statusCode;
  // What Fastify itself refuses (too large, another type) keeps its status.
  if (!(thrown instanceof SuiteError) && own !== undefined && own < 500)
    return reply.code(own).type("text/plain").send("not a request of this protocol\n");
  const { code, retry, text } = errorReply(thrown);
  if (code === "internal") log.error({ error: asSuiteError(thrown), url: request.url }, "an enrolment request failed");
  if (code === "auth-failed" || code === "auth-required")
    reply.header("www-authenticate", 'Basic realm="enrolment", charset="UTF-8"');
  if (retry !== undefined) reply.header("retry-after", String(retry));
  return reply.code(statusOfError(code)).type("text/plain; charset=utf-8").send(`${code}: ${text}\n`);
}
