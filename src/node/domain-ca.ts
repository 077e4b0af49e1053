import { randomBytes } from "node:crypto";
import { mkdirSync } from "node:fs";
import { join } from "node:path";
import { Approvals } from "../irp/approvals.ts";
import { lastEntry, revokedBehind } from "../irp/audit.ts";
import type { Authority } from "../irp/authority.ts";
import { CertificateAuthority } from "../irp/ca.ts";
import { type CaKeyOptions, type OpenedCa, openCa, openCaOrLocked } from "../irp/ca-keys.ts";
import { succeedHere, successionIsDue } from "../irp/ca-succession.ts";
import type { Registered } from "../irp/register.ts";
import { answerStatus } from "../irp/status-http.ts";
import type { PeerAddress } from "../peertls-core/connection.ts";
import type { LocalListener } from "../peertls-core/loopback.ts";
import { listenPlainHttp } from "../peertls-core/plain-http.ts";
import type { Certificate } from "../pki/certificate.ts";
import type { Log } from "../pki/log.ts";
import { asSuiteError, SuiteError } from "../pki/suite-error.ts";
import type { DomainConfig } from "./config.ts";
import { externalAuthority } from "./domain-external.ts";
import type { Home } from "./home.ts";

export interface DomainCaOptions {
  home: Home;
  config: DomainConfig;
  log: Log;
  clock: () => Date;
}

const LOOK_MS = 600_000;
const FOLLOW_MS = 1_000;
const REFRESH_MS = 30_000;

/** The CA of a domain in its home: keys, register, what is told of revocation, and what has to be done from time to time. */
export class DomainCa {
  readonly authority: Authority;
  readonly approvals: Approvals;
  readonly #o: DomainCaOptions;
  readonly #own: CertificateAuthority | undefined;
  readonly #external: ReturnType<typeof externalAuthority> | undefined;
  #keys: OpenedCa;
  readonly #followers: (() => void)[] = [];
  #timer: NodeJS.Timeout | undefined;
  #status: LocalListener | undefined;

  /** @throws SuiteError config-invalid, store-failed */
  constructor(o: DomainCaOptions) {
    this.#o = o;
    const { home, config, clock } = o;
    this.#keys = openedKeys(caOptions(home, config, clock()), openCaOrLocked);
    const est = config.ca?.est;
    this.#external = est && externalAuthority(home, est, clock);
    this.#own = est === undefined ? ownAuthority(o, this.#keys) : undefined;
    this.authority = this.#external?.authority ?? (this.#own as CertificateAuthority);
    this.approvals = new Approvals(this.authority.register, randomBytes);
  }

  get keys(): OpenedCa {
    return this.#keys;
  }

  /**
   * Tells of each certificate that is revoked from now on, within a second: by this process, or by the command line beside it.
   * @returns ends that
   */
  follow(onRevoked: (registered: Registered) => void): () => void {
    const { register } = this.authority;
    let last = lastEntry(register.database);
    const timer = setInterval(() => {
      try {
        const found = revokedBehind(register.database, last);
        last = found.last;
        for (const serial of found.serials) {
          const registered = register.find(serial);
          if (registered !== undefined) onRevoked(registered);
        }
      } catch (error) {
        this.#o.log.error({ error: asSuiteError(error) }, "revocations cannot be followed");
      }
    }, FOLLOW_MS);
    timer.unref();
    const stop = () => clearInterval(timer);
    this.#followers.push(stop);
    return stop;
  }

  /** What the domain's own certificates lead to: its server's by its own root, its people's by that or another CA's. */
  get anchors(): readonly Certificate[] {
    const { chain } = this.#external?.authority ?? { chain: [] };
    return [this.#keys.root, ...chain.filter(({ sha256 }) => sha256 !== this.#keys.root.sha256)];
  }

  /** Where lists and OCSP answers are got. */
  get status(): PeerAddress | undefined {
    return this.#status?.address;
  }

  async start(): Promise<void> {
    this.look();
    const { config, clock } = this.#o;
    this.#timer = setInterval(() => this.look(), LOOK_MS);
    this.#timer.unref();
    if (config.status === undefined) return;
    const o = { authority: this.authority, fault: () => this.authority.fault, clock };
    this.#status = await listenPlainHttp(config.status, (request) => answerStatus(request, o));
  }

  /**
   * What is due: the issuing CA's successor at half of its life, the server's own certificate, the hourly lists. Another
   * process may have put a successor in force, too.
   */
  look(): void {
    const { home, config, clock, log } = this.#o;
    this.#external?.authority
      .refresh(AbortSignal.timeout(REFRESH_MS))
      .catch((error: unknown) => log.error({ error: asSuiteError(error) }, "the CA of the domain is not reached"));
    const o = caOptions(home, config, clock());
    try {
      if (successionIsDue(o) && !succeedHere(o))
        log.warn(
          {},
          "half of the issuing CA's life is over: `sixtalk domain ca csr` makes the request for the root's owner",
        );
      const keys = openedKeys(o, openCaOrLocked);
      const before = this.#keys;
      if ("locked" in keys) log.error({ why: keys.locked }, "the CA issues nothing");
      if (
        keys.issuing.certificate.sha256 !== before.issuing.certificate.sha256 ||
        keys.former.length !== before.former.length ||
        "locked" in keys !== "locked" in before
      ) {
        this.#own?.succeed(keys);
        log.info({ notAfter: keys.issuing.certificate.validity.notAfter }, "another issuing CA is in force");
        this.#keys = keys;
      } else if (keys.server.certificate.sha256 !== before.server.certificate.sha256) this.#keys = keys;
    } catch (error) {
      log.error({ error: asSuiteError(error) }, "the keys of the CA cannot be looked after");
    }
    try {
      this.authority.signLists();
    } catch (error) {
      log.error(
        { error: asSuiteError(error) },
        "the revocation list cannot be signed; the last one serves until its end",
      );
    }
  }

  async stop(): Promise<void> {
    clearInterval(this.#timer);
    for (const stop of this.#followers) stop();
    await this.#status?.close();
    this.#external?.http.close();
    this.authority.close();
  }
}

function ownAuthority({ home, config, clock }: DomainCaOptions, keys: OpenedCa): CertificateAuthority {
  const url = config.status?.url;
  return new CertificateAuthority({
    ...{ keys, register: join(home.domain, "ca.db"), clock, random: randomBytes },
    ...(url === undefined ? {} : { statusUrl: url }),
  });
}

/** The CA's keys in a home, whole. @throws SuiteError config-invalid */
export function openKeys(home: Home, config: Pick<DomainConfig, "name" | "ca">, now: Date) {
  return openedKeys(caOptions(home, config, now), openCa);
}

export function caOptions(home: Home, { name, ca }: Pick<DomainConfig, "name" | "ca">, now: Date): CaKeyOptions {
  const passphrase = ca?.passphrase;
  return {
    ...{ directory: join(home.domain, "ca"), domain: name, now, random: randomBytes },
    ...(passphrase === undefined ? {} : { passphraseFile: passphrase.slice("file:".length) }),
  };
}

function openedKeys<K extends OpenedCa>(o: CaKeyOptions, open: (o: CaKeyOptions) => K): K {
  mkdirSync(join(o.directory, ".."), { recursive: true, mode: 0o700 });
  const keys = open(o);
  if (!keys.server.certificate.subjectAltNames.some((one) => one.type === "dNSName" && one.text === o.domain)) {
    throw new SuiteError("config-invalid", "the CA in this home is another domain's", {
      fault: "local",
      details: { domain: o.domain },
    });
  }
  return keys;
}
