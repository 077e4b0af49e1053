import { identityDomain } from "../../pki/identity.ts";
import type { Log } from "../../pki/log.ts";
import type { TrustAnchor } from "../../pki/path.ts";
import { SuiteError } from "../../pki/suite-error.ts";
import { type BoxReply, MAX_BOXED } from "../records.ts";
import type { DirectoryStore, RequestLimits } from "../store/store.ts";
import { requestClaims, verifyRequest } from "../verify.ts";
import type { Accounts } from "./accounts.ts";
import type { Caller } from "./caller.ts";

export interface RequestBoxesOptions {
  domain: string;
  store: DirectoryStore;
  accounts: Accounts;
  /** Of the own domain and of others. @throws SuiteError for one that is not known */
  anchorsFor: (domain: string) => Promise<readonly TrustAnchor[]>;
  clock: () => Date;
  log: Log;
}

/**
 * Limits count what was asked, not what waits: a number that fell when an owner fetched his requests would tell the
 * asker who exists. The own domain's people stand under their administrator and have no limit together.
 */
const LIMITS: RequestLimits = {
  windowMs: 86_400_000,
  perAsker: 5,
  perDomain: 50,
  total: 10_000,
  pending: MAX_BOXED,
};

/** The request boxes of a domain's people: where strangers ask to be admitted, whether or not anybody's node is up. */
export class RequestBoxes {
  readonly #o: RequestBoxesOptions;

  constructor(options: RequestBoxesOptions) {
    this.#o = options;
  }

  /**
   * Takes a request, durably before it returns. Whoever asks hands it in himself. The answer is the same whether the
   * addressee exists, has room, or has decided about the asker.
   * @throws SuiteError forbidden, record-rejected; busy with `retrySeconds` for who asks too much
   */
  async handIn(caller: Caller, jws: string): Promise<{ state: "pending" }> {
    const { domain, store, accounts, anchorsFor, clock, log } = this.#o;
    if (caller.kind !== "person" || caller.by !== "sca")
      throw new SuiteError("forbidden", "who asks proves who he is by certificate", { fault: "peer" });
    const { to } = requestClaims(jws);
    if (identityDomain(to) !== domain) throw refused("addressee");
    const now = clock();
    const anchors = await anchorsFor(identityDomain(caller.identity));
    const { from, certificate, body, hash } = await verifyRequest(jws, to, { anchors, now });
    if (from !== caller.identity || certificate.fingerprint !== caller.fingerprint) throw refused("signer");
    const owner = (await accounts.find(to))?.uuid;
    const taken = await store.putRequest(
      {
        ...{ hash, from, to, owner, jws, signer: certificate.fingerprint },
        at: now.getTime(),
        expires: body.expires * 1000,
      },
      identityDomain(from) === domain ? { ...LIMITS, perDomain: Number.POSITIVE_INFINITY } : LIMITS,
    );
    log.info({ from, to, ...taken }, "a request to be admitted was handed in");
    if (taken.outcome === "too-many") {
      throw new SuiteError("busy", "asked too often", {
        fault: "peer",
        temporary: true,
        details: { retrySeconds: Math.max(1, Math.ceil((taken.retryAt - now.getTime()) / 1000)) },
      });
    }
    return { state: "pending" };
  }

  /** What waits for the caller. @throws SuiteError forbidden */
  async list(caller: Caller): Promise<BoxReply> {
    const owner = await this.#owner(caller);
    return { requests: await this.#o.store.requestsOf(owner, this.#o.clock().getTime()) };
  }

  /** Takes one out of the caller's box; one that is not there is gone already. @throws SuiteError forbidden */
  async drop(caller: Caller, id: string): Promise<void> {
    await this.#o.store.removeRequest(await this.#owner(caller), id);
  }

  async #owner(caller: Caller): Promise<string> {
    const account = caller.kind === "person" ? await this.#o.accounts.find(caller.identity) : undefined;
    if (account === undefined)
      throw new SuiteError("forbidden", "only people of this domain may do this", { fault: "peer" });
    return account.uuid;
  }
}

function refused(step: string): SuiteError {
  return new SuiteError("record-rejected", "the request is not acceptable", { fault: "peer", details: { step } });
}
