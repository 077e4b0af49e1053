import type { HttpsClient } from "../peertls-core/https-client.ts";
import { type Identity, identityDomain } from "../pki/identity.ts";
import type { TrustAnchor } from "../pki/path.ts";
import { asSuiteError, type SuiteError } from "../pki/suite-error.ts";
import { ask, readReply } from "./ask.ts";
import type { DirectoryClient, KnownDomain } from "./client.ts";
import { type BoxReply, boxReply } from "./records.ts";
import { requestClaims, type VerifiedRequest, verifyRequest } from "./verify.ts";

export interface RequestBoxOptions {
  identity: Identity;
  /** Kept connections to the own domain's server. */
  http: HttpsClient;
  /** What the own server knows of other domains. */
  directory: Pick<DirectoryClient, "otherDomain" | "learnDomain">;
  /** A client for another domain's server, which shows the own certificate. */
  httpTo: (domain: KnownDomain) => HttpsClient;
  /** Where the path of an asker of that domain may end. */
  anchorsFor: (domain: string) => readonly TrustAnchor[];
  clock: () => Date;
}

/** What the server says lies in the box: a request that was verified here, or why it is none. */
export type Boxed = { id: string } & ({ request: VerifiedRequest } | { refused: SuiteError });

/** The request boxes that a node uses: other people's, to ask; and its owner's, to see who asks. */
export class RequestBox {
  readonly #o: RequestBoxOptions;

  constructor(options: RequestBoxOptions) {
    this.#o = options;
  }

  /**
   * Hands a signed request in at the server of the addressee's domain, by the own certificate; no server speaks for
   * others here. Resolves when it was taken, which tells nothing about the addressee.
   * @throws SuiteError unknown-recipient for an unknown domain, directory-unavailable (also: asked too often), record-rejected
   */
  async handIn(to: Identity, jws: string, signal: AbortSignal): Promise<void> {
    const { identity, http, httpTo, directory } = this.#o;
    const question = { method: "POST", path: "/v1/requests", body: jws };
    const domain = identityDomain(to);
    if (domain === identityDomain(identity)) return void (await ask(http, question, signal));
    const other = httpTo(await directory.otherDomain(domain, signal));
    try {
      await ask(other, question, signal);
    } finally {
      other.close();
    }
  }

  /** What waits for the owner. Nothing is believed: each one is verified as if a stranger had brought it. @throws as `handIn` */
  async list(signal: AbortSignal): Promise<Boxed[]> {
    const response = await ask(this.#o.http, { method: "GET", path: "/v1/requests" }, signal);
    const { requests } = await readReply<BoxReply>(boxReply, response);
    return Promise.all(requests.map(({ id, jws }) => this.#verified(id, jws, signal)));
  }

  /** Takes one out of the owner's box. @throws as `handIn` */
  async drop(id: string, signal: AbortSignal): Promise<void> {
    await ask(this.#o.http, { method: "DELETE", path: `/v1/requests/${encodeURIComponent(id)}` }, signal);
  }

  async #verified(id: string, jws: string, signal: AbortSignal): Promise<Boxed> {
    const { identity, directory, anchorsFor, clock } = this.#o;
    try {
      const domain = identityDomain(requestClaims(jws).from);
      // Without it its path leads nowhere, which another day may pass.
      await directory.learnDomain(domain, signal).catch(() => undefined);
      const anchors = anchorsFor(domain);
      return { id, request: await verifyRequest(jws, identity, { anchors, now: clock() }) };
    } catch (error) {
      return { id, refused: asSuiteError(error) };
    }
  }
}
