import type { HttpsClient } from "../../peertls-core/https-client.ts";
import { type Identity, identityDomain } from "../../pki/identity.ts";
import type { Log } from "../../pki/log.ts";
import { SuiteError } from "../../pki/suite-error.ts";
import { type RecordReply, recordReply } from "../records.ts";

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

  /** @throws SuiteError unknown-recipient (no such domain or person), directory-unavailable, record-rejected */
  async ask(key: Identity, onBehalfOf: Identity, signal: AbortSignal): Promise<RecordReply> {
    const domain = identityDomain(key);
    const client = this.#o.clientFor(domain);
    const question: RecursiveQuestion = { key, onBehalfOf, hops: 1, trail: [this.#o.domain] };
    const unavailable = (cause?: unknown, details = {}) =>
      new SuiteError("directory-unavailable", "the other domain's directory does not answer", {
        fault: "service",
        temporary: true,
        details: { domain, ...details },
        ...(cause === undefined ? {} : { cause }),
      });
    let response: Awaited<ReturnType<HttpsClient["request"]>>;
    try {
      response = await client.request(
        {
          method: "POST",
          path: "/v1/recursive",
          headers: { "content-type": "application/json" },
          body: JSON.stringify(question),
        },
        AbortSignal.any([signal, AbortSignal.timeout(ANSWER_MS)]),
      );
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
    const parsed = recordReply.safeParse(value);
    if (!parsed.success)
      throw new SuiteError("record-rejected", "the other domain's directory answers nonsense", {
        fault: "service",
        details: { domain },
      });
    return parsed.data;
  }
}
