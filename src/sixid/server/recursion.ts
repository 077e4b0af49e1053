import type { HttpsClient } from "../../peertls-core/https-client.ts";
import { type Identity, identityDomain } from "../../pki/identity.ts";
import type { Log } from "../../pki/log.ts";
import { SuiteError } from "../../pki/suite-error.ts";
import type { LookupKey } from "../lookup-key.ts";
import { type ChainReply, chainReply, type RecordReply, recordReply } from "../records.ts";

export interface RecursionOptions {
  domain: string;
  /** Kept connections to another domain's server, with our domain certificate. @throws SuiteError unknown-recipient */
  clientFor: (domain: string) => HttpsClient;
  log: Log;
}

/** What one domain's server asks another's. */
export interface RecursiveQuestion {
  key: string;
  onBehalfOf: Identity;
  hops: number;
  trail: readonly string[];
}

export const MAX_HOPS = 2;
const ANSWER_MS = 3_000;

/** Asks the server of the person's own domain. Objects are passed on as they are signed; the asker verifies them. */
export class Recursion {
  readonly #o: RecursionOptions;

  constructor(options: RecursionOptions) {
    this.#o = options;
  }

  /**
   * @param key an identity or e-mail address of another domain
   * @throws SuiteError unknown-recipient (no such domain or person), directory-unavailable, record-rejected
   */
  ask({ kind, value }: LookupKey, onBehalfOf: Identity, signal: AbortSignal): Promise<RecordReply> {
    const key = kind === "email" ? `mailto:${value}` : value;
    const question: RecursiveQuestion = { key, onBehalfOf, hops: 1, trail: [this.#o.domain] };
    const headers = { "content-type": "application/json" };
    const request = { method: "POST", path: "/v1/recursive", headers, body: JSON.stringify(question) };
    return this.#asked(identityDomain(value as Identity), request, recordReply, signal);
  }

  /** The history of one of another domain. @throws as `ask` */
  chain(of: Identity, uuid: string, from: number, signal: AbortSignal): Promise<ChainReply> {
    const path = `/v1/identity/${encodeURIComponent(uuid)}/chain?from=${from}`;
    return this.#asked(identityDomain(of), { method: "GET", path }, chainReply, signal);
  }

  async #asked<T>(
    domain: string,
    request: Parameters<HttpsClient["request"]>[0],
    schema: { safeParse(value: unknown): { success: boolean; data?: T } },
    signal: AbortSignal,
  ): Promise<T> {
    const client = this.#o.clientFor(domain);
    const unavailable = (cause?: unknown, details = {}) =>
      new SuiteError("directory-unavailable", "the other domain's directory does not answer", {
        fault: "service",
        temporary: true,
        details: { domain, ...details },
        ...(cause === undefined ? {} : { cause }),
      });
    let response: Awaited<ReturnType<HttpsClient["request"]>>;
    try {
      response = await client.request(request, AbortSignal.any([signal, AbortSignal.timeout(ANSWER_MS)]));
    } catch (error) {
      if (error instanceof SuiteError && error.code === "unknown-recipient") throw error; // no such service, says the DNS
      this.#o.log.warn({ domain, error: error instanceof SuiteError ? error.code : String(error) }, "recursion failed");
      throw unavailable(error);
    }
    if (response.status === 404)
      throw new SuiteError("unknown-recipient", "the other domain does not know this person", { fault: "peer" });
    if (response.status !== 200) throw unavailable(undefined, { status: response.status });
    let value: unknown;
    try {
      value = JSON.parse(response.body.toString("utf8"));
    } catch (cause) {
      throw new SuiteError("record-rejected", "the other domain's directory answers nonsense", {
        fault: "service",
        cause,
        details: { domain },
      });
    }
    const parsed = schema.safeParse(value);
    if (!parsed.success)
      throw new SuiteError("record-rejected", "the other domain's directory answers nonsense", {
        fault: "service",
        details: { domain },
      });
    return parsed.data as T;
  }
}
