import type { Identity } from "../pki/identity.ts";
import type { Log } from "../pki/log.ts";
import { asSuiteError } from "../pki/suite-error.ts";
import type { DirectoryClient } from "../sixid/client.ts";
import type { PeerRecord } from "../sixid/directory.ts";
import type { KeyFiles } from "./keys.ts";

export interface OwnCertificatesOptions {
  files: KeyFiles;
  identity: Identity;
  directory: Pick<DirectoryClient, "lookup">;
  /** The key files hold more certificates. */
  onLearned: () => void;
  log: Log;
}

const ASK_MS = 5_000;

/**
 * A home that was made of a backup may lack certificates of later renewals, to which others have sealed meanwhile: they name the
 * certificate, not the key. The own record has them, until another is published in its place.
 */
export class OwnCertificates {
  readonly #o: OwnCertificatesOptions;

  constructor(options: OwnCertificatesOptions) {
    this.#o = options;
  }

  /** Keeps those of the own record that are for keys of ours. @throws SuiteError config-invalid; what the disk throws */
  learn({ encryption, chain }: PeerRecord): void {
    const { files, onLearned, log } = this.#o;
    const certificates = encryption.map(({ certificate }) => certificate);
    const learned = files.learn(certificates, chain);
    if (learned === 0) return;
    log.info({ learned }, "the own record has certificates that the key files did not have");
    onLearned();
  }

  /** In a home that was restored and not renewed since: asks before anybody comes in. The announcer asks again. */
  async catchUp(signal: AbortSignal): Promise<void> {
    const { files, directory, identity, log } = this.#o;
    if (files.load().encryption[0]?.renewAfter.getTime() !== 0) return;
    try {
      const soon = AbortSignal.any([signal, AbortSignal.timeout(ASK_MS)]);
      this.learn(await directory.lookup(identity, { fresh: true }, soon));
    } catch (error) {
      log.warn({ error: asSuiteError(error) }, "the own record could not be asked for newer certificates");
    }
  }
}
