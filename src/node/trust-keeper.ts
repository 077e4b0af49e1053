import type { PolicyAnchor, TrustRules } from "../peertls-core/policy.ts";
import type { TrustConfig } from "../peertls-core/policy-schema.ts";
import type { Trust } from "../peertls-core/trust.ts";
import { type Certificate, parseCertificate } from "../pki/certificate.ts";
import { type Identity, identityDomain } from "../pki/identity.ts";
import type { TrustAnchor } from "../pki/path.ts";
import type { KnownDomain } from "../sixid/client.ts";
import type { DomainAnchor, State } from "./state.ts";
import { domainAnchor, readFileAnchors, trustRules } from "./trust-rules.ts";

/** Where the rules in force come from: the configuration, the owner's commands, and the anchors that the directory tells. */
export class TrustKeeper {
  readonly #owner: Identity;
  readonly #state: State;
  readonly #trust: Trust;
  /** Roots of the own domain. */
  readonly #own: readonly Certificate[];
  #config: TrustConfig;
  /** As the files had them when the configuration was read: what they hold later changes nothing before the next reload. */
  #fileAnchors: readonly PolicyAnchor[];

  /** @throws SuiteError config-invalid for an anchor file that cannot be read */
  constructor(o: { owner: Identity; state: State; trust: Trust; own: readonly Certificate[]; config: TrustConfig }) {
    this.#owner = o.owner;
    this.#state = o.state;
    this.#trust = o.trust;
    this.#own = o.own;
    this.#config = o.config;
    this.#fileAnchors = readFileAnchors(o.config);
  }

  get config(): TrustConfig {
    return this.#config;
  }

  /** Puts the present rules in force. Open connections are judged again. */
  apply(): void {
    this.#trust.replace(this.#rules(this.#config, this.#fileAnchors));
  }

  /** Another configuration's rules; `between` may still refuse, and then nothing is changed. @throws SuiteError config-invalid */
  reload(config: TrustConfig, between: () => void): void {
    const fileAnchors = readFileAnchors(config);
    between();
    this.#config = config;
    this.#fileAnchors = fileAnchors;
    this.apply();
  }

  /** What another configuration's rules would be. @throws SuiteError config-invalid */
  rulesOf(config: TrustConfig): TrustRules {
    return this.#rules(config, readFileAnchors(config));
  }

  /** Where the path of a person's certificate may end, by his domain. */
  anchorsFor(domain: string): readonly TrustAnchor[] {
    return this.#trust.policy.anchors.filter(({ domains }) => domains.some((one) => one === "any" || one === domain));
  }

  /** Whose records of a domain count: what the directory itself tells, not what the owner's file allows beside it. */
  directoryAnchors(domain: string): readonly TrustAnchor[] {
    return this.#domainAnchors().filter(({ domains }) => domains.includes(domain));
  }

  /** The anchors that the own directory tells for other domains. */
  learn(known: readonly KnownDomain[]): void {
    const own = identityDomain(this.#owner);
    this.#state.setDomainAnchors(known.filter(({ domain }) => domain !== own).flatMap(anchorsOf));
    this.apply();
  }

  /** Those of one more domain, which the own directory has found. */
  learnOne(known: KnownDomain): void {
    if (known.domain === identityDomain(this.#owner)) return;
    this.#state.addDomainAnchors(anchorsOf(known));
    this.apply();
  }

  #rules(config: TrustConfig, fileAnchors: readonly PolicyAnchor[]): TrustRules {
    return trustRules(this.#owner, config, this.#state, fileAnchors, this.#domainAnchors());
  }

  #domainAnchors(): PolicyAnchor[] {
    const own = identityDomain(this.#owner);
    return [
      ...this.#own.map((certificate) => domainAnchor(own, certificate)),
      ...this.#state.domainAnchors().map(({ domain, der }) => domainAnchor(domain, parseCertificate(der))),
    ];
  }
}

function anchorsOf({ domain, anchors, at }: KnownDomain): DomainAnchor[] {
  return anchors.map(({ der }) => ({ domain, der, found: at === undefined }));
}
