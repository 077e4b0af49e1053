import type { PeerAddress } from "../../peertls-core/connection.ts";
import type { HttpsClient } from "../../peertls-core/https-client.ts";
import type { ServiceCaller } from "../../peertls-core/service.ts";
import { peerCertificate } from "../../pki/certificate.ts";
import { identityDomain, parseDomain } from "../../pki/identity.ts";
import type { Log } from "../../pki/log.ts";
import { type TrustAnchor, validatePath } from "../../pki/path.ts";
import { asSuiteError, SuiteError } from "../../pki/suite-error.ts";
import { ask, readReply } from "../ask.ts";
import { verifyDomainDocument } from "../domain-document.ts";
import type { Locator } from "../locate.ts";
import { type DomainReply, domainReply } from "../records.ts";

/** A domain that the configuration names: it is not asked for. */
export interface ConfiguredDomain {
  readonly domain: string;
  readonly at: PeerAddress;
  readonly anchors: readonly TrustAnchor[];
}

export interface FederationOptions {
  /** The own domain. */
  domain: string;
  /** `open`: any domain that the DNS names; else only configured ones. */
  mode: "open" | "listed" | "closed";
  configured: () => readonly ConfiguredDomain[];
  locator: Pick<Locator, "servers">;
  /** Who may certify the servers of domains that are not configured. */
  webAnchors: () => readonly TrustAnchor[];
  /** Which addresses may be asked. */
  mayAsk: (host: string) => boolean;
  connect: (o: {
    domain: string;
    addresses: () => readonly PeerAddress[] | Promise<readonly PeerAddress[]>;
    anchors: () => readonly TrustAnchor[];
  }) => HttpsClient;
  clock: () => Date;
  log: Log;
}

/** A domain, and where the paths of its people may end. */
export interface OtherDomain {
  readonly domain: string;
  readonly anchors: readonly TrustAnchor[];
  readonly at?: PeerAddress;
}

interface Learned {
  readonly anchors: readonly TrustAnchor[];
  readonly asked: number;
  readonly expires: number;
}

/** What a domain said holds so long before it is asked again. */
const FRESH_MS = 3_600_000;
/** After a failure it is not asked again for so long. */
const AGAIN_MS = 30_000;
const MAX_LEARNED = 10_000;
const MAX_CLIENTS = 1_000;
/** Domains that strangers may make us ask for, a minute: each takes a look into the DNS and a connection. */
const STRANGERS_PER_MINUTE = 60;
const ANSWER_MS = 5_000;

/**
 * The other domains: configured ones, and, if federation is open, those that are found by DNS and prove themselves by a
 * certificate of the web's CAs. What such a domain says of its anchors holds for its own people only.
 */
export class Federation {
  readonly #o: FederationOptions;
  readonly #learned = new Map<string, Learned>();
  readonly #failed = new Map<string, { until: number; error: SuiteError }>();
  readonly #asking = new Map<string, Promise<Learned>>();
  readonly #clients = new Map<string, { client: HttpsClient; of: ConfiguredDomain | undefined }>();
  #strangers = { minute: 0, count: 0 };

  constructor(options: FederationOptions) {
    this.#o = options;
  }

  /** Configured, and learned so far. */
  known(): readonly OtherDomain[] {
    const configured = this.#o.configured();
    const learned = [...this.#learned]
      .filter(([domain]) => !configured.some((one) => one.domain === domain))
      .map(([domain, { anchors }]) => ({ domain, anchors }));
    return [...configured, ...learned];
  }

  /** Kept connections to a domain's server. @throws SuiteError unknown-recipient for one that is not to be asked */
  clientFor(domain: string): HttpsClient {
    const configured = this.#o.configured().find((one) => one.domain === domain);
    if (configured === undefined) this.#mustBeOpen(domain);
    const known = this.#clients.get(domain);
    if (known !== undefined && known.of === configured) return known.client;
    known?.client.close();
    const client = this.#o.connect(
      configured === undefined
        ? { domain, addresses: () => this.#located(domain), anchors: this.#o.webAnchors }
        : { domain, addresses: () => [configured.at], anchors: () => configured.anchors },
    );
    this.#clients.delete(domain);
    this.#clients.set(domain, { client, of: configured });
    const [oldest] = this.#clients.keys();
    if (this.#clients.size > MAX_CLIENTS && oldest !== undefined) {
      this.#clients.get(oldest)?.client.close();
      this.#clients.delete(oldest);
    }
    return client;
  }

  /**
   * Where the paths of that domain's people may end.
   * @param by at whose wish: what strangers can make us do is bounded
   * @throws SuiteError unknown-recipient, directory-unavailable, record-rejected; busy
   */
  async anchorsOf(domain: string, by: "own" | "stranger"): Promise<readonly TrustAnchor[]> {
    const configured = this.#o.configured().find((one) => one.domain === domain);
    if (configured !== undefined) return configured.anchors;
    this.#mustBeOpen(domain);
    const now = this.#o.clock().getTime();
    const known = this.#learned.get(domain);
    if (known !== undefined && now < Math.min(known.asked + FRESH_MS, known.expires)) return known.anchors;
    const failed = this.#failed.get(domain);
    try {
      if (failed !== undefined && now < failed.until) throw failed.error;
      if (by === "stranger" && known === undefined) this.#strangersTurn(now);
      return (await this.#once(domain)).anchors;
    } catch (error) {
      // It may be down; what it said holds until that ends.
      if (known !== undefined && now < known.expires) return known.anchors;
      throw error;
    }
  }

  /** Who an anonymous caller is by the certificate that it showed, if its domain vouches for it. */
  async callerOf(caller: ServiceCaller): Promise<ServiceCaller> {
    const { presented } = caller;
    if (presented === undefined) return caller;
    const certificate = peerCertificate(presented.leaf);
    const named = [
      ...certificate.identities.map(({ identity }) => identityDomain(identity)),
      ...presented.leaf.subjectAltNames.flatMap((name) => (name.type === "dNSName" ? [name.text.toLowerCase()] : [])),
    ];
    const domain = named.find((one) => one !== this.#o.domain && isDomain(one));
    if (domain === undefined) return caller;
    let anchors: readonly TrustAnchor[];
    try {
      anchors = await this.anchorsOf(domain, "stranger");
    } catch (error) {
      this.#o.log.debug({ domain, error: asSuiteError(error).code }, "a caller's domain cannot be asked about him");
      return caller;
    }
    const path = validatePath({
      leaf: presented.leaf,
      candidates: presented.sent,
      anchors,
      time: this.#o.clock(),
      purpose: "peer",
    });
    return path.ok ? { address: caller.address, certificate, anchor: domain } : caller;
  }

  close(): void {
    for (const { client } of this.#clients.values()) client.close();
    this.#clients.clear();
  }

  async #located(domain: string): Promise<readonly PeerAddress[]> {
    const found = await this.#o.locator.servers("sixid", domain);
    const allowed = found.filter(({ host }) => this.#o.mayAsk(host));
    if (allowed.length > 0) return allowed;
    throw new SuiteError("directory-unavailable", "the domain's server has no address that may be asked", {
      fault: "service",
      temporary: true,
      details: { domain },
    });
  }

  /** Several who ask at once wait for one answer. */
  #once(domain: string): Promise<Learned> {
    const running = this.#asking.get(domain);
    if (running !== undefined) return running;
    const asking = this.#learn(domain).finally(() => this.#asking.delete(domain));
    this.#asking.set(domain, asking);
    return asking;
  }

  async #learn(domain: string): Promise<Learned> {
    const { clock, log } = this.#o;
    try {
      const response = await ask(
        this.clientFor(domain),
        { method: "GET", path: "/v1/domain" },
        AbortSignal.timeout(ANSWER_MS),
      );
      const { domain: jws } = await readReply<DomainReply>(domainReply, response);
      const document = await verifyDomainDocument(jws, domain, clock());
      const anchors = document.anchors.map((certificate) => ({ name: domain, certificate }));
      const before = this.#learned.get(domain);
      const learned = { anchors, asked: clock().getTime(), expires: document.expires.getTime() };
      if (before === undefined) log.info({ domain }, "another domain was found");
      else if (hashes(before.anchors) !== hashes(anchors))
        log.warn({ domain }, "another domain has other anchors than before");
      this.#learned.delete(domain);
      this.#learned.set(domain, learned);
      this.#failed.delete(domain);
      const [oldest] = this.#learned.keys();
      if (this.#learned.size > MAX_LEARNED && oldest !== undefined) this.#learned.delete(oldest);
      return learned;
    } catch (thrown) {
      const error = asSuiteError(thrown);
      log.warn({ domain, error: error.code, ...error.details }, "another domain cannot be learned");
      this.#failed.delete(domain);
      this.#failed.set(domain, { until: clock().getTime() + AGAIN_MS, error });
      const [oldest] = this.#failed.keys();
      if (this.#failed.size > MAX_LEARNED && oldest !== undefined) this.#failed.delete(oldest);
      throw error;
    }
  }

  #mustBeOpen(domain: string): void {
    if (this.#o.mode === "open" && domain !== this.#o.domain && isDomain(domain)) return;
    throw new SuiteError("unknown-recipient", "no directory is known for this domain", {
      fault: "peer",
      details: { domain },
    });
  }

  #strangersTurn(now: number): void {
    const minute = Math.floor(now / 60_000);
    if (this.#strangers.minute !== minute) this.#strangers = { minute, count: 0 };
    this.#strangers.count += 1;
    if (this.#strangers.count <= STRANGERS_PER_MINUTE) return;
    throw new SuiteError("busy", "too many unknown domains are asked about", { fault: "peer", temporary: true });
  }
}

function hashes(anchors: readonly TrustAnchor[]): string {
  return anchors
    .map(({ certificate }) => certificate.sha256)
    .toSorted()
    .join();
}

function isDomain(text: string): boolean {
  try {
    return parseDomain(text) === text;
  } catch {
    return false;
  }
}
