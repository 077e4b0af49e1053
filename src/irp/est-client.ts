import type { HttpsClient, HttpsResponse } from "../peertls-core/https-client.ts";
import type { Certificate } from "../pki/certificate.ts";
import { readCertsOnly } from "../pki/certs-only.ts";
import { SuiteError } from "../pki/suite-error.ts";

export interface EstClientOptions {
  http: HttpsClient;
  /** Path of the server, as `/.well-known/est`. */
  base: string;
  /** `user:password`, where no certificate proves who one is. */
  basic?: string;
}

/** A client of EST (RFC 7030): of a CA that somebody else runs. */
export class EstClient {
  readonly #o: EstClientOptions;

  constructor(options: EstClientOptions) {
    this.#o = options;
  }

  /** @throws SuiteError unreachable (`upstream`), certificate-malformed */
  async cacerts(label: string | undefined, signal: AbortSignal): Promise<Certificate[]> {
    return certificatesIn(await this.#ask("GET", label, "cacerts", undefined, signal));
  }

  /**
   * Asks for a certificate.
   * @returns the certificates of the answer, which has at least the one that was asked for
   * @throws SuiteError busy with `retrySeconds` while a person decides there; unreachable (`upstream`)
   */
  async enrol(label: string | undefined, csr: Uint8Array, signal: AbortSignal): Promise<Certificate[]> {
    const answer = await this.#ask("POST", label, "simpleenroll", csr, signal);
    if (answer.status !== 202) return certificatesIn(answer);
    const told = answer.headers["retry-after"] ?? "";
    throw new SuiteError("busy", "the CA has to approve this", {
      fault: "service",
      temporary: true,
      details: { retrySeconds: /^\d{1,6}$/.test(told) ? Number(told) : RETRY_SECONDS },
    });
  }

  async #ask(
    method: string,
    label: string | undefined,
    operation: string,
    csr: Uint8Array | undefined,
    signal: AbortSignal,
  ): Promise<HttpsResponse> {
    const { http, base, basic } = this.#o;
    const body = csr === undefined ? {} : { body: Buffer.from(csr).toString("base64") };
    const headers = {
      ...(csr === undefined ? {} : { "content-type": "application/pkcs10", "content-transfer-encoding": "base64" }),
      ...(basic === undefined ? {} : { authorization: `Basic ${Buffer.from(basic).toString("base64")}` }),
    };
    const path = [base, ...(label === undefined ? [] : [label]), operation].join("/");
    const answer = await http.request({ method, path, headers, ...body }, signal).catch((cause: unknown) => {
      throw upstream("the CA is not reached", cause);
    });
    if (answer.status === 200 || answer.status === 202) return answer;
    throw upstream("the CA refuses", undefined, { status: answer.status });
  }
}

const RETRY_SECONDS = 60;

/** The other CA is at fault: not who asked us. */
export function upstream(
  why: string,
  cause?: unknown,
  details: Readonly<Record<string, string | number>> = {},
): SuiteError {
  return new SuiteError("unreachable", "the CA that issues for this domain does not", {
    ...{ fault: "service", temporary: true, cause },
    details: { code: "upstream", why, ...details },
  });
}

function certificatesIn({ body }: HttpsResponse): Certificate[] {
  try {
    return readCertsOnly(Buffer.from(body.toString("latin1").replace(/\s+/g, ""), "base64"));
  } catch (cause) {
    throw upstream("the CA's answer cannot be read", cause);
  }
}
