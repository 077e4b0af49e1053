import { IrpClient, type IssuedCertificate, type PendingCertificate } from "../irp/client.ts";
import type { Certificate } from "../pki/certificate.ts";
import { identityDomain } from "../pki/identity.ts";
import type { Log } from "../pki/log.ts";
import { sameName } from "../pki/name.ts";
import { SuiteError } from "../pki/suite-error.ts";
import type { Home } from "./home.ts";
import { makeHome } from "./home.ts";
import type { Invitation } from "./invitation.ts";
import { KeyFiles } from "./keys.ts";
import { ownRecord } from "./own-record.ts";
import { serversOf } from "./own-servers.ts";
import { pause } from "./pause.ts";
import { publishRecord } from "./publish-record.ts";

export interface EnrolOptions {
  home: Home;
  invitation: Invitation;
  name: string;
  /** What this device is called in the own record. */
  label: string;
  /** Whom to ask where the domain's servers are, if the invitation does not say it; absent: this machine's. */
  dnsServers?: readonly string[];
  clock: () => Date;
  log: Log;
}

/**
 * From an invitation to a published record (irp.md §2.6). Each step is durable and repeatable: cut off anywhere, the same
 * call goes on with the same keys.
 * @returns the root of the domain, to be pinned; `furtherRoots`: of the CA that issues for it, where that is another one
 * @throws SuiteError of the enrolment server, the directory, or the connection
 */
export async function enrol(
  o: EnrolOptions,
  signal: AbortSignal,
): Promise<{ root: Certificate; furtherRoots: readonly Certificate[]; uuid: string }> {
  const { home, invitation } = o;
  const { identity } = invitation;
  const domain = identityDomain(identity);
  makeHome(home);
  const files = new KeyFiles(home);
  let authKey = files.keyFor("auth");
  let encryptionKey = files.keyFor("encryption");
  const servers = serversOf(domain, invitation.at, o.dnsServers ?? [], o.clock);
  const base = { address: await servers.irp(), domain, clock: o.clock };
  const first = await IrpClient.connect({ ...base, trust: { rootHash: invitation.rootHash } }, signal);
  const { root } = first;
  let auth: IssuedCertificate;
  let uuid: string;
  let furtherRoots: Certificate[];
  try {
    furtherRoots = (await first.cacerts()).filter((one) => isRoot(one) && one.sha256 !== root.sha256);
    ({ uuid } = await first.authenticate(identity, { code: invitation.code }));
    // The CSR is kept: the same one within a day gets the same certificate, even if the code is spent by then.
    const enrolAuth = async () =>
      approved(await first.enrol("auth", files.csrFor("auth", authKey, identity), o.label), first, signal);
    auth = await enrolAuth().catch((error: unknown) => {
      if (files.enrolled || !isKeyInUse(error)) throw error;
      authKey = files.newKeyFor("auth");
      return enrolAuth();
    });
  } finally {
    first.close();
  }
  files.storeCertificate("auth", auth.certificates);
  const [certificate, ...chain] = auth.certificates;
  if (certificate === undefined) throw new SuiteError("syntax", "the server sent no certificate", { fault: "service" });
  const trust = { anchors: [{ name: domain, certificate: root }] };
  const second = await IrpClient.connect(
    { ...base, trust, credentials: { privateKey: authKey, certificate, chain } },
    signal,
  );
  try {
    await second.authenticateByCertificate();
    const enrolEncryption = async () =>
      approved(await second.enrol("encryption", files.csrFor("encryption", encryptionKey, identity)), second, signal);
    const encryption = await enrolEncryption().catch((error: unknown) => {
      if (files.enrolled || !isKeyInUse(error)) throw error;
      encryptionKey = files.newKeyFor("encryption");
      return enrolEncryption();
    });
    // What is sealed to a certificate of an earlier enrolment names that one: it stays.
    if (files.enrolled && !files.holds(encryption.certificates))
      files.storeRenewed("encryption", encryptionKey, encryption.certificates, encryption.renewAfter);
    else files.storeCertificate("encryption", encryption.certificates);
    files.storeEnrolment({ uuid, renewAfter: { auth: auth.renewAfter, encryption: encryption.renewAfter } });
  } finally {
    second.close();
  }
  const keys = files.load();
  const own = ownRecord(identity, o.name, o.label, keys, o.clock());
  const roots = [root, ...furtherRoots];
  await publishRecord({ ...{ home, servers, roots, keys, own }, clock: o.clock, log: o.log }, signal);
  return { root, furtherRoots, uuid };
}

function isRoot({ issuer, subject, basicConstraints }: Certificate): boolean {
  return basicConstraints?.ca === true && sameName(issuer, subject);
}

/**
 * Waits for the domain's owner to approve the request, as long as `signal` lets it.
 * @throws SuiteError busy when it is over: the same again later goes on from here
 */
export async function approved(
  answer: IssuedCertificate | PendingCertificate,
  client: IrpClient,
  signal: AbortSignal,
): Promise<IssuedCertificate> {
  let now = answer;
  while ("ref" in now) {
    const { ref, retrySeconds } = now;
    await pause(Math.min(retrySeconds, MAX_ASK_SECONDS) * 1000, signal);
    if (signal.aborted)
      throw new SuiteError("busy", "the domain's owner has to approve this; the same again goes on from here", {
        fault: "service",
        temporary: true,
        details: { ref },
      });
    now = await client.pending(ref);
  }
  return now;
}

const MAX_ASK_SECONDS = 10;

/** The CA gave the key to somebody else before, or took it back: as after a link that somebody had used already. */
function isKeyInUse(error: unknown): boolean {
  return error instanceof SuiteError && error.code === "conflict";
}
