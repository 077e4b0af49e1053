import type { ServiceCaller } from "../peertls-core/service.ts";
import { identityDomain } from "../pki/identity.ts";
import { SuiteError } from "../pki/suite-error.ts";
import type { Accounts } from "./directory.ts";
import type { Applicant, Registration } from "./registration.ts";

export interface Authenticating {
  domain: string;
  accounts: Accounts;
  registration: Registration;
}

/** Who the certificate in the handshake names (SCA). @throws SuiteError auth-failed */
export async function byCertificate(caller: ServiceCaller | undefined, o: Authenticating): Promise<Applicant> {
  const certificate = caller?.certificate;
  // An anchor is named after the one domain that it may vouch for: another domain's CA speaks for nobody of ours.
  const vouched = caller?.anchor === o.domain;
  const named = vouched ? certificate?.identities.find((one) => identityDomain(one.identity) === o.domain) : undefined;
  const account = named === undefined ? undefined : await o.accounts.find(named.identity);
  if (certificate === undefined || account === undefined || o.registration.isRevoked(certificate.certificate))
    throw new SuiteError("auth-failed", "the certificate names nobody here", { fault: "peer" });
  return { account, by: { method: "certificate", certificate: certificate.certificate } };
}

/**
 * By user name and password or invitation code (UPA).
 * @throws SuiteError auth-failed, with one text for every cause, and `retrySeconds` while failures are waited out
 */
export async function bySecret(
  user: string,
  secret: { code: string } | { password: string },
  { accounts }: Authenticating,
): Promise<Applicant> {
  try {
    if ("code" in secret) {
      const account = await accounts.authenticateCode(user, secret.code);
      return { account, by: { method: "code", code: secret.code } };
    }
    return { account: await accounts.authenticatePassword(user, secret.password), by: { method: "password" } };
  } catch (cause) {
    if (!(cause instanceof SuiteError) || cause.details["retrySeconds"] === undefined) throw cause;
    // Whoever is made to wait is told how long, and nothing else: not even that the account is there.
    const retrySeconds = Number(cause.details["retrySeconds"]);
    throw new SuiteError("auth-failed", "wrong user, password or code", { fault: "peer", details: { retrySeconds } });
  }
}
