import { randomBytes } from "node:crypto";
import { existsSync } from "node:fs";
import { join } from "node:path";
import { fastify } from "fastify";
import { type CaKeys, createCa, type OpenedCa } from "../irp/ca-keys.ts";
import { est } from "../irp/est.ts";
import type { Registered } from "../irp/register.ts";
import { Registration } from "../irp/registration.ts";
import { serveIrp } from "../irp/server.ts";
import type { PeerAddress } from "../peertls-core/connection.ts";
import type { LocalListener } from "../peertls-core/loopback.ts";
import { type HttpsService, httpsService } from "../peertls-core/service.ts";
import type { Certificate, Fingerprint } from "../pki/certificate.ts";
import { type Identity, identityLocal, parseIdentity } from "../pki/identity.ts";
import type { Log } from "../pki/log.ts";
import type { TrustAnchor } from "../pki/path.ts";
import { asSuiteError, SuiteError } from "../pki/suite-error.ts";
import { Accounts } from "../sixid/server/accounts.ts";
import type { ConfiguredDomain, Federation } from "../sixid/server/federation.ts";
import { routes } from "../sixid/server/http.ts";
import { Recursion } from "../sixid/server/recursion.ts";
import { DirectoryService } from "../sixid/server/service.ts";
import type { DirectoryStore } from "../sixid/store/store.ts";
import type { DomainConfig } from "./config.ts";
import { DomainCa, openKeys } from "./domain-ca.ts";
import { enrolBackups, enrolDirectory } from "./domain-directory.ts";
import { domainDocument, domainFederation, webCredentials } from "./domain-federation.ts";
import { openStore } from "./domain-store.ts";
import type { Home } from "./home.ts";
import { formatInvitation } from "./invitation.ts";
import { readCertificates } from "./trust-rules.ts";

/** Of one person, that are looked through for a key. */
const MOST_CERTIFICATES = 10_000;

export interface DomainOptions {
  home: Home;
  config: DomainConfig;
  /** Whom to ask for other domains; absent: those of this machine. */
  dnsServers?: readonly string[];
  log: Log;
  clock: () => Date;
}

/** Makes the CA of a domain; one that was made for it before, and then cut off, is taken as it is. @throws SuiteError config-invalid */
export function initDomain(home: Home, domain: string, now: Date): CaKeys {
  const directory = join(home.domain, "ca");
  if (existsSync(join(directory, "root.pem"))) return openKeys(home, { name: domain }, now);
  return createCa({ directory, domain, now, random: randomBytes });
}

/**
 * Makes an account and a one-time invitation, directly in the directory's database: a running server sees it at once.
 * @param reach where the invited node finds the server; `dns`: by the domain's SRV records
 */
export async function invite(
  o: DomainOptions,
  user: string,
  name: string | undefined,
  reach: PeerAddress | "dns",
): Promise<{ link: string; expires: Date; identity: Identity; enrolled: boolean }> {
  if (reach !== "dns" && !/^[0-9a-f:.]+$/i.test(reach.host))
    throw new SuiteError("syntax", "where the server is reached is no IP address", {
      fault: "local",
      details: { reach: reach.host },
    });
  const identity = parseIdentity(user.includes("@") ? user : `${user}@${o.config.name}`);
  const keys = openKeys(o.home, o.config, o.clock());
  const store = await openStore(o.config, o.home);
  try {
    const accounts = new Accounts({ store, domain: o.config.name, clock: o.clock, random: randomBytes });
    const { code, expires } = await accounts.invite(identity, name ?? nameFrom(identity));
    const link = formatInvitation({
      identity,
      ...(reach === "dns" ? {} : { at: { irp: { ...reach, port: o.config.irpPort }, sixidPort: o.config.sixidPort } }),
      code,
      rootHash: keys.root.fingerprint.slice(0, 32),
    });
    const user = await store.user(identity);
    const enrolled = user !== undefined && (await store.record(user.uuid)) !== undefined;
    return { link, expires, identity, enrolled };
  } finally {
    await store.close();
  }
}

/** The domain role: directory, CA and enrolment of one Internet domain, put together and running. */
export class DomainServer {
  readonly accounts: Accounts;
  readonly ca: DomainCa;
  readonly #store: DirectoryStore;
  readonly #registration: Registration;
  readonly #https: HttpsService;
  readonly #app: ReturnType<typeof fastify>;
  readonly #federation: Federation;
  readonly #o: DomainOptions;
  #irp: LocalListener | undefined;
  #directory: DirectoryService | undefined;
  /** Keys that were revoked while this process runs: connections by them may still be open. */
  readonly #revoked = new Set<Fingerprint>();
  #sixid: PeerAddress | undefined;
  #others: readonly ConfiguredDomain[];

  static async start(o: DomainOptions): Promise<DomainServer> {
    const store = await openStore(o.config, o.home);
    try {
      const server = new DomainServer(o, store);
      await server.#run();
      return server;
    } catch (error) {
      await store.close();
      throw error;
    }
  }

  private constructor(o: DomainOptions, store: DirectoryStore) {
    this.#o = o;
    const { name } = o.config;
    this.#store = store;
    const { clock, log } = o;
    this.accounts = new Accounts({ store: this.#store, domain: name, clock, random: randomBytes });
    this.ca = new DomainCa(o);
    const { authority, approvals } = this.ca;
    const mode = o.config.ca?.approval ?? "none";
    this.#registration = new Registration({
      ...{ authority, accounts: this.accounts, clock, log },
      ...(mode === "none" ? {} : { approval: { mode, approvals } }),
    });
    this.#others = o.config.domains.map(({ domain, host, port, anchor }) => ({
      domain,
      at: { host, port },
      anchors: readCertificates(anchor).map((certificate) => ({ name: domain, certificate })),
    }));
    this.#federation = domainFederation({
      ...{ config: o.config, dnsServers: o.dnsServers ?? [], clock, log },
      configured: () => this.#others,
      credentials: () => this.keys.server,
    });
    const web = webCredentials(o.config);
    this.#https = httpsService({
      ...this.#tls(),
      credentialsFor: (serverName) => (serverName === name ? web : undefined),
      ...{ host: o.config.host, port: o.config.sixidPort },
    });
    this.#app = fastify({
      serverFactory: (handler) => this.#https.serverFactory(handler),
      bodyLimit: 131_072,
      routerOptions: { maxParamLength: 320 },
    });
  }

  get keys(): OpenedCa {
    return this.ca.keys;
  }

  get ports(): { sixid: PeerAddress; irp: PeerAddress; status?: PeerAddress } {
    const none = { host: "", port: 0 };
    const { status } = this.ca;
    return {
      ...{ sixid: this.#sixid ?? none, irp: this.#irp?.address ?? none },
      ...(status === undefined ? {} : { status }),
    };
  }

  /** Another domain becomes known, or moves. */
  know(domain: string, at: PeerAddress, roots: readonly Certificate[]): void {
    const anchors = roots.map((certificate) => ({ name: domain, certificate }));
    this.#others = [...this.#others.filter((one) => one.domain !== domain), { domain, at, anchors }];
  }

  async stop(): Promise<void> {
    await this.#irp?.close();
    this.#directory?.close();
    await this.#https.close();
    this.#federation.close();
    await this.#app.close();
    await this.ca.stop();
    await this.#store.close();
  }

  async #run(): Promise<void> {
    const { config, log, clock } = this.#o;
    const federation = this.#federation;
    const recursion = new Recursion({ domain: config.name, clientFor: (domain) => federation.clientFor(domain), log });
    const service = new DirectoryService({
      domain: config.name,
      store: this.#store,
      accounts: this.accounts,
      recursion,
      anchors: () => this.#ownAnchors(),
      federation,
      document: () => domainDocument(config, { credentials: this.keys.server, anchors: this.ca.anchors, now: clock() }),
      onRevoked: async (identity, fingerprint) => this.#revokeKey(identity, fingerprint),
      clock,
      log,
    });
    await this.#app.register(routes, {
      service,
      accounts: this.accounts,
      https: this.#https,
      federation,
      isRevoked: (fingerprint: Fingerprint) => this.#revoked.has(fingerprint),
      identityOf: async (uuid: string) => (await this.#store.userById(uuid))?.identity,
      log,
    });
    const registration = this.#registration;
    const { accounts } = this;
    const callerOf = (socket: object) => this.#https.callerOf(socket);
    const registrars = config.ca?.registrars?.map((text) => parseIdentity(text)) ?? [];
    await this.#app.register(est, { domain: config.name, accounts, registration, callerOf, registrars, log });
    await this.#app.ready();
    this.#directory = service;
    this.ca.follow((revoked) => void this.#dropDevice(revoked));
    await this.ca.start();
    this.#sixid = await this.#https.listen();
    this.#irp = await serveIrp({
      at: { host: config.host, port: config.irpPort },
      ...{ domain: config.name, tls: this.#tls(), accounts, registration, clock, log },
      directory: enrolDirectory(service),
      backups: enrolBackups(service),
      ...(config.status?.url === undefined ? {} : { statusUrl: config.status.url }),
    });
    log.info({ domain: config.name, sixid: this.#sixid, irp: this.#irp.address }, "domain server running");
  }

  /** The directory was told that a device is gone or stolen. */
  #revokeKey(identity: Identity, fingerprint: string): void {
    const { register } = this.ca.authority;
    for (const one of register.list({ identity, kind: "auth", limit: MOST_CERTIFICATES }))
      if (one.fingerprint === fingerprint && one.revoked === undefined)
        this.#registration.revokeAs(one.serial, "cessationOfOperation", `directory ${identity}`);
  }

  /** Where a revoked device is, is told to nobody any more; those who watch hear it at once. */
  async #dropDevice({ kind, identity, fingerprint }: Registered): Promise<void> {
    if (kind !== "auth") return;
    this.#revoked.add(fingerprint);
    this.#directory?.feed.drop(fingerprint);
    try {
      const user = await this.#store.user(identity);
      if (user !== undefined) await this.#store.dropDevice(user.uuid, fingerprint);
    } catch (error) {
      this.#o.log.error({ identity, error: asSuiteError(error) }, "a revoked device is still in the directory");
    }
  }

  #tls() {
    return {
      credentials: () => this.keys.server,
      revoked: (certificate: Certificate) => this.#registration.isRevoked(certificate),
      // The issuing CAs, too: many programs send their certificate without what is above it.
      clientAnchors: () => [
        ...this.#ownAnchors(),
        ...this.#issuingCas(),
        ...this.#federation.known().flatMap(({ anchors }) => anchors),
      ],
      clock: this.#o.clock,
      log: this.#o.log,
    };
  }

  #issuingCas(): TrustAnchor[] {
    const { issuing, former } = this.keys;
    return [issuing, ...former].map(({ certificate }) => ({ name: this.#o.config.name, certificate }));
  }

  #ownAnchors(): TrustAnchor[] {
    return this.ca.anchors.map((certificate) => ({ name: this.#o.config.name, certificate }));
  }
}

/**
 * "j.doe" as "J Doe": a common name that looks like a host is taken for one by OpenSSL and others, and the CA may certify no
 * hosts but its domain's.
 */
function nameFrom(identity: Identity): string {
  const words = identityLocal(identity)
    .split(/[^\p{L}\p{N}]+/u)
    .filter((word) => word !== "");
  return words.map((word) => word.charAt(0).toUpperCase() + word.slice(1)).join(" ") || identityLocal(identity);
}
