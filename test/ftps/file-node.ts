import { randomBytes } from "node:crypto";
import { join } from "node:path";
import { noCut } from "../../src/delivery/cut-point.ts";
import type { EndpointPort } from "../../src/delivery/endpoint.ts";
import { type Inbox, makeInbox } from "../../src/delivery/inbox.ts";
import { makeOutbox, type Outbox, type OutboxOptions } from "../../src/delivery/outbox.ts";
import type { OwnerAccess } from "../../src/delivery/owner-access.ts";
import { smimeOpener, smimeSealer } from "../../src/delivery/sealing.ts";
import { openStore, type Store } from "../../src/delivery/store.ts";
import { systemTime } from "../../src/delivery/time.ts";
import { FtpsEndpoint } from "../../src/ftps/endpoint.ts";
import type { LocalTls } from "../../src/peertls-core/loopback.ts";
import { makePeerTls, type PeerTls } from "../../src/peertls-core/peertls.ts";
import { Trust } from "../../src/peertls-core/trust.ts";
import { parseCertificate, peerCertificate } from "../../src/pki/certificate.ts";
import { type Identity, identityLocal } from "../../src/pki/identity.ts";
import type { Issuer } from "../../src/pki/issue.ts";
import { silentLog } from "../../src/pki/log.ts";
import { derToPem } from "../../src/pki/pem.ts";
import { issueLocalServer, issueRoot } from "../../src/pki/profile.ts";
import { SuiteError } from "../../src/pki/suite-error.ts";
import type { Directory, PeerRecord } from "../../src/sixid/directory.ts";
import { makeEcKey, makeTestDomain, spkiOf, type TestPerson } from "../support/pki.ts";

/** One domain with its people, and a directory of those whose nodes run. */
export class FileWorld implements Pick<Directory, "lookup"> {
  readonly domain = makeTestDomain({ domain: "alpha.test" });
  readonly records = new Map<Identity, PeerRecord>();
  /** Thrown by every look-up while it is set. */
  failure: SuiteError | undefined;

  person(name: string): TestPerson {
    return this.domain.person({ identity: `${name}@alpha.test`, encryptionKey: "ec" });
  }

  async lookup(identity: Identity): Promise<PeerRecord> {
    if (this.failure !== undefined) throw this.failure;
    const record = this.records.get(identity);
    if (record !== undefined) return record;
    throw new SuiteError("unknown-recipient", "unknown", { fault: "peer" });
  }

  publish(person: TestPerson, port: number): void {
    const certificate = peerCertificate(person.auth.certificate);
    const address = { host: "::1", port, kind: "direct" as const, priority: 0 };
    this.records.set(person.identity, {
      identity: person.identity,
      uuid: person.identity,
      name: person.identity,
      devices: [{ fingerprint: certificate.fingerprint, label: "test", certificate, addresses: [address] }],
      encryption: [peerCertificate(person.encryption.certificate)],
      chain: [...person.auth.chain],
      capabilities: { cms: ["gcm"] },
      seq: 1,
      stale: false,
      trust: "pinned",
    });
  }

  /** As a node makes it: for localhost, by a CA of its own. */
  localTls(): LocalTls {
    const key = makeEcKey();
    const { issuer, domain } = this.#local;
    const der = issueLocalServer({ issuer, spki: spkiOf(key), now: domain.now, serial: randomBytes(16) });
    return {
      certificatePem: derToPem(der, "CERTIFICATE"),
      keyPem: key.export({ type: "pkcs8", format: "pem" }) as string,
    };
  }

  /** What the owner's programs are told to trust. */
  get localCa(): string {
    return derToPem(this.#local.issuer.certificate.der, "CERTIFICATE");
  }

  get #local() {
    this.#localIssuer ??= makeLocalIssuer(this.domain.now);
    return { issuer: this.#localIssuer, domain: this.domain };
  }
  #localIssuer: Issuer | undefined;
}

function makeLocalIssuer(now: Date): Issuer {
  const privateKey = makeEcKey();
  const der = issueRoot({ domain: "localhost", privateKey, now, serial: randomBytes(16) });
  return { certificate: parseCertificate(der), privateKey };
}

export interface FileNode extends AsyncDisposable {
  person: TestPerson;
  core: PeerTls;
  trust: Trust;
  store: Store;
  inbox: Inbox;
  outbox: Outbox;
  ftps: FtpsEndpoint;
  /** Of the owner's door. */
  port: number;
  peerPort: number;
}

export const PASSWORD = "correct-horse";

/** A person's node as far as files go: real TLS, real store, real seals. */
export async function startFileNode(
  world: FileWorld,
  person: TestPerson,
  folder: string,
  o: Pick<OutboxOptions, "parts"> = {},
): Promise<FileNode> {
  const clock = () => new Date();
  const trust = new Trust({
    anchors: [
      {
        name: "alpha",
        certificate: world.domain.root.certificate,
        domains: ["alpha.test"],
        organisations: [],
        identitiesFrom: ["rfc822Name", "emailAddress", "uid", "sipUri", "smtpUtf8"],
      },
    ],
    block: [],
    allow: [],
    rules: [{ domain: "alpha.test" }],
    otherwise: "deny",
    contacts: [],
    requestsOnPort: false,
  });
  const core = await makePeerTls({ credentials: person.auth, trust, clock, random: randomBytes, log: silentLog });
  const directory = join(folder, identityLocal(person.identity));
  const store = await openStore({
    directory,
    time: systemTime(clock),
    random: randomBytes,
    log: silentLog,
    cut: noCut,
    minFreeBytes: 0,
  });
  const open = smimeOpener({
    keys: () => [person.encryption],
    anchorsFor: () => [world.domain.anchor],
    addressees: [person.identity],
    clock,
  });
  const inbox = makeInbox({ store, open });
  const ftps = new FtpsEndpoint({
    owner: person.identity,
    access: accessOf(person.identity),
    directory: world,
    local: { host: "127.0.0.1", ftpPort: 0, tls: world.localTls() },
    random: randomBytes,
  });
  const outbox = await makeOutbox({
    store,
    directory: { lookup: (identity) => world.lookup(identity), publishAddresses: () => Promise.resolve() },
    seal: smimeSealer({ signer: () => person.auth, clock }),
    endpointOf: () => ftps,
    schedule: [0, 1],
    ...o,
  });
  const port: EndpointPort = {
    peerTls: core,
    inbox,
    outbox,
    store,
    log: silentLog,
    clock,
    onPeer: (protocol, accept) => core.onPeer(protocol, accept),
  };
  await ftps.start(port);
  const peer = await core.listen({ host: "::1", port: 0 });
  world.publish(person, peer.port);
  outbox.start();
  return {
    person,
    core,
    trust,
    store,
    inbox,
    outbox,
    ftps,
    port: ftps.addresses?.ftp.port ?? 0,
    peerPort: peer.port,
    async [Symbol.asyncDispose]() {
      await ftps.stop();
      await outbox.stop();
      await core.close();
      await store.close();
    },
  };
}

function accessOf(owner: Identity): OwnerAccess {
  return {
    owner,
    realm: "alpha.test",
    verify: (user, password) =>
      (user === owner || user === identityLocal(owner)) && password === PASSWORD ? "test" : undefined,
    ha1s: () => [],
  };
}

export async function* pieces(bytes: Buffer, size = 65_536): AsyncGenerator<Buffer> {
  for (let at = 0; at < bytes.length; at += size) yield bytes.subarray(at, at + size);
}
