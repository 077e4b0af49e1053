import { IrpClient } from "../irp/client.ts";
import type { PeerAddress } from "../peertls-core/connection.ts";
import type { Certificate } from "../pki/certificate.ts";
import { makeCsr } from "../pki/csr.ts";
import type { Identity } from "../pki/identity.ts";
import { identityDomain } from "../pki/identity.ts";
import type { Log } from "../pki/log.ts";
import type { TrustAnchor } from "../pki/path.ts";
import { asSuiteError } from "../pki/suite-error.ts";
import { approved } from "./enrol.ts";
import type { KeyFiles, OwnKey, OwnKeys } from "./keys.ts";
import { pause } from "./pause.ts";

export interface RenewalOptions {
  files: KeyFiles;
  identity: Identity;
  /** Where the domain's enrolment server is, best first. */
  servers: () => Promise<readonly PeerAddress[]>;
  anchors: readonly TrustAnchor[];
  clock: () => Date;
  /** The certificate in force, whatever the key files hold. */
  own: () => Certificate;
  /** The key files hold new certificates. */
  onRenewed: () => void;
  log: Log;
}

interface Due {
  kind: "auth" | "encryption";
  key: OwnKey;
}

const LOOK_MS = 600_000;
/** How often the CA is asked whether it wants a renewal sooner than it first said. */
const ASK_MS = 86_400_000;
/** How long a renewal that has to be approved is waited for; then it is tried again as any other. */
const APPROVAL_MS = 60_000;
const FIRST_RETRY_MS = 60_000;
const LAST_RETRY_MS = 3_600_000;
const WARN_MS = 5 * 86_400_000;

/** Keeps the own certificates fresh: asks the CA for new ones, with the same keys, at the time that it named (irp.md §2.6). */
export class Renewal {
  readonly #o: RenewalOptions;
  #asked = 0;

  constructor(options: RenewalOptions) {
    this.#o = options;
  }

  /** Runs until `signal` aborts. */
  async run(signal: AbortSignal): Promise<void> {
    let retry = FIRST_RETRY_MS;
    while (!signal.aborted) {
      try {
        await this.renewDue(signal);
        retry = FIRST_RETRY_MS;
        await pause(LOOK_MS, signal);
      } catch (error) {
        if (signal.aborted) return;
        this.#warn(error);
        await pause(retry, signal);
        retry = Math.min(retry * 2, LAST_RETRY_MS);
      }
    }
  }

  /** @returns which were renewed @throws SuiteError of the enrolment server or the connection */
  async renewDue(signal: AbortSignal): Promise<readonly ("auth" | "encryption")[]> {
    const { files, clock, log } = this.#o;
    const keys = files.load();
    const [encryption] = keys.encryption;
    const now = clock();
    const own = [
      { kind: "auth" as const, key: keys.auth },
      ...(encryption === undefined ? [] : [{ kind: "encryption" as const, key: encryption }]),
    ];
    const late = own.filter(({ key }) => key.renewAfter <= now);
    if (late.length > 0) return this.#renew(own, keys, now, signal);
    if (now.getTime() < this.#asked + ASK_MS) return [];
    this.#asked = now.getTime();
    try {
      return await this.#renew(own, keys, now, signal);
    } catch (error) {
      if (!signal.aborted) log.debug({ error: asSuiteError(error) }, "the CA was not asked whether it wants a renewal");
      return []; // nothing is late
    }
  }

  /** Renews what is late, and what the CA wants renewed sooner than it first said, as after an incident. */
  async #renew(own: readonly Due[], keys: OwnKeys, now: Date, signal: AbortSignal): Promise<readonly Due["kind"][]> {
    const { files, clock, identity, servers, log } = this.#o;
    const domain = identityDomain(identity);
    const connection = {
      address: await servers(),
      domain,
      trust: { anchors: this.#o.anchors },
      credentials: keys.auth,
      clock,
    };
    const client = await IrpClient.connect(connection, signal);
    let due: readonly Due[] = [];
    try {
      await client.authenticateByCertificate();
      const told = await client.certificates({ status: "good" });
      const wanted = ({ key }: Due) =>
        told.find(({ serial }) => serial === Buffer.from(key.certificate.serial).toString("hex"))?.renewAfter;
      due = own.filter((one) => one.key.renewAfter <= now || (wanted(one) ?? Number.NaN) * 1000 <= now.getTime());
      for (const { kind, key } of due) {
        const csr = makeCsr({ privateKey: key.privateKey, commonName: identity, identity });
        const { certificates, renewAfter } = await approved(
          await client.renew(kind, "same", csr),
          client,
          AbortSignal.any([signal, AbortSignal.timeout(APPROVAL_MS)]),
        );
        files.storeRenewed(kind, key.privateKey, certificates, renewAfter);
        log.info({ kind, renewAfter }, "certificate renewed");
      }
    } finally {
      client.close();
      if (due.length > 0) this.#o.onRenewed();
    }
    return due.map(({ kind }) => kind);
  }

  #warn(error: unknown): void {
    const { clock, log } = this.#o;
    const ends = this.#o.own().validity.notAfter;
    const soon = ends.getTime() - clock().getTime() < WARN_MS;
    const fields = { ends, error: asSuiteError(error) };
    if (soon) log.error(fields, "the own certificate ends soon and cannot be renewed");
    else log.warn(fields, "the certificates could not be renewed");
  }
}
