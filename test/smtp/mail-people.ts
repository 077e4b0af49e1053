import { randomBytes } from "node:crypto";
import { noCut } from "../../src/delivery/cut-point.ts";
import { type Inbox, makeInbox } from "../../src/delivery/inbox.ts";
import { makeOutbox, type Outbox } from "../../src/delivery/outbox.ts";
import type { OwnerAccess } from "../../src/delivery/owner-access.ts";
import { type ContentEncryption, smimeOpener, smimeSealer } from "../../src/delivery/sealing.ts";
import { openStore, type Store } from "../../src/delivery/store.ts";
import { systemTime } from "../../src/delivery/time.ts";
import type { LocalTls } from "../../src/peertls-core/loopback.ts";
import { makePeerTls, type PeerTls } from "../../src/peertls-core/peertls.ts";
import { Trust } from "../../src/peertls-core/trust.ts";
import { peerCertificate } from "../../src/pki/certificate.ts";
import type { Identity } from "../../src/pki/identity.ts";
import { identityDomain, identityLocal } from "../../src/pki/identity.ts";
import { silentLog } from "../../src/pki/log.ts";
import { derToPem } from "../../src/pki/pem.ts";
import { SuiteError } from "../../src/pki/suite-error.ts";
import type { Directory, PeerRecord } from "../../src/sixid/directory.ts";
import { SmtpEndpoint } from "../../src/smtp/endpoint.ts";
import { makeTestDomain, type TestPerson } from "../support/pki.ts";

export const clock = () => new Date();
export const never = new AbortController().signal;
export const PASSWORD = "correct horse";

const sources = ["rfc822Name", "emailAddress", "uid", "sipUri", "smtpUtf8"] as const;

export const domain = makeTestDomain({ domain: "alpha.test" });

/** A directory in memory: whoever runs a node is in it. */
export class Records implements Directory {
  readonly records = new Map<Identity, () => PeerRecord>();
  failure: SuiteError | undefined;
  /** One for each attempt of an outbox, and for each recipient that a program names. */
  lookups = 0;

  async lookup(identity: Identity): Promise<PeerRecord> {
    this.lookups += 1;
    if (this.failure !== undefined) throw this.failure;
    const record = this.records.get(identity);
    if (record === undefined) throw new SuiteError("unknown-recipient", "nobody of that name", { fault: "peer" });
    return record();
  }

  publishAddresses(): Promise<void> {
    return Promise.resolve();
  }
}

export interface MailNode extends AsyncDisposable {
  readonly person: TestPerson;
  readonly peerTls: PeerTls;
  readonly store: Store;
  readonly inbox: Inbox;
  readonly outbox: Outbox;
  readonly smtp: SmtpEndpoint;
  readonly peerPort: number;
}

/** A certificate for the local listeners; `ca` is what a program has to trust. */
export function localTls(): LocalTls & { ca: string } {
  const local = makeTestDomain({ domain: "localhost" });
  const server = local.domainServer();
  const certificatePem = [server.certificate, ...server.chain].map(({ der }) => derToPem(der, "CERTIFICATE")).join("");
  return {
    certificatePem,
    keyPem: server.privateKey.export({ type: "pkcs8", format: "pem" }) as string,
    ca: derToPem(local.root.certificate.der, "CERTIFICATE"),
  };
}

/** One person's node as far as mail needs it: real PeerTLS, real store and queue, real seals. */
export async function mailNode(
  directory: string,
  person: TestPerson,
  records: Records,
  o: { contacts: readonly Identity[]; tls?: LocalTls; contentEncryption?: ContentEncryption },
): Promise<MailNode> {
  const anchor = { ...domain.anchor, domains: ["alpha.test"], organisations: [], identitiesFrom: sources };
  const trust = new Trust({
    anchors: [anchor],
    block: [],
    allow: [],
    rules: [],
    otherwise: "contacts",
    contacts: o.contacts,
    requestsOnPort: false,
  });
  const peerTls = await makePeerTls({ credentials: person.auth, trust, clock, random: randomBytes, log: silentLog });
  const store = await openStore({
    directory,
    time: systemTime(clock),
    random: randomBytes,
    log: silentLog,
    cut: noCut,
    minFreeBytes: 0,
  });
  const inbox = makeInbox({
    store,
    open: smimeOpener({
      keys: () => [person.encryption],
      anchorsFor: () => [domain.anchor],
      addressees: [person.identity],
      clock,
    }),
  });
  const access: OwnerAccess = {
    owner: person.identity,
    realm: identityDomain(person.identity),
    verify: (user, password) =>
      (user === person.identity || user === identityLocal(person.identity)) && password === PASSWORD
        ? "test"
        : undefined,
    ha1s: () => [],
  };
  const smtp = new SmtpEndpoint({
    owner: person.identity,
    name: identityLocal(person.identity),
    access,
    directory: records,
    local: { host: "127.0.0.1", smtpsPort: 0, submissionPort: 0, tls: o.tls ?? localTls() },
    random: randomBytes,
  });
  const outbox = await makeOutbox({
    store,
    directory: records,
    seal: smimeSealer({ signer: () => person.auth, clock, contentEncryption: o.contentEncryption ?? "auto" }),
    endpointOf: () => smtp,
    schedule: [0, 1],
  });
  await smtp.start({
    ...{ peerTls, inbox, outbox, store, clock },
    log: silentLog,
    onPeer: (protocol, accept) => peerTls.onPeer(protocol, accept),
  });
  const { host, port } = await peerTls.listen({ host: "::1", port: 0 });
  const certificate = peerCertificate(person.auth.certificate);
  records.records.set(person.identity, () => ({
    identity: person.identity,
    uuid: person.identity,
    name: person.identity,
    devices: [
      {
        fingerprint: certificate.fingerprint,
        label: "test",
        certificate,
        addresses: [{ host, port, kind: "direct", priority: 0 }],
      },
    ],
    encryption: [peerCertificate(person.encryption.certificate)],
    chain: [...person.auth.chain],
    capabilities: { cms: ["gcm"] },
    seq: 1,
    stale: false,
    trust: "pinned",
  }));
  outbox.start();
  return {
    ...{ person, peerTls, store, inbox, outbox, smtp },
    peerPort: port,
    async [Symbol.asyncDispose]() {
      await smtp.stop();
      await outbox.stop();
      await peerTls.close();
      await store.close();
    },
  };
}
