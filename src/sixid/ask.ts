import type { HttpsClient, HttpsResponse } from "../peertls-core/https-client.ts";
import { SuiteError } from "../pki/suite-error.ts";
import { rejected } from "./signed.ts";

const ANSWER_MS = 10_000;

/** A question to a directory's server. `body`: a signed object, unless `type` says otherwise. `accepted`: statuses beside 2xx that the asker understands itself. */
export interface Question {
  method: string;
  path: string;
  body?: string | Buffer;
  type?: string;
  headers?: Readonly<Record<string, string>>;
  accepted?: readonly number[];
}

/** @throws SuiteError directory-unavailable, unknown-recipient, and what the server's status says */
export async function ask(http: HttpsClient, question: Question, signal: AbortSignal): Promise<HttpsResponse> {
  const { method, path, body, type = "application/jose", headers = {}, accepted = [] } = question;
  let response: HttpsResponse;
  try {
    response = await http.request(
      { method, path, ...(body === undefined ? {} : { body, headers: { ...headers, "content-type": type } }) },
      AbortSignal.any([signal, AbortSignal.timeout(ANSWER_MS)]),
    );
  } catch (error) {
    if (signal.aborted) throw error;
    if (error instanceof SuiteError && error.code === "unknown-recipient") throw error; // no such service, says the DNS
    throw new SuiteError("directory-unavailable", "the directory cannot be reached", {
      fault: "service",
      temporary: true,
      cause: error,
    });
  }
  if ((response.status >= 200 && response.status < 300) || accepted.includes(response.status)) return response;
  throw failureOf(response);
}

interface Schema {
  safeParse(value: unknown): { success: boolean; data?: unknown };
}

/** Async, so that what it throws is watched as any refusal. @throws SuiteError record-rejected for an answer of another form */
export async function readReply<T>(schema: Schema, response: HttpsResponse): Promise<T> {
  return parseReply(schema, response.body.toString("utf8"));
}

/** @throws SuiteError record-rejected */
export function parseReply<T>(schema: Schema, text: string): T {
  let value: unknown;
  try {
    value = JSON.parse(text);
  } catch (cause) {
    throw rejected("reply", cause);
  }
  const result = schema.safeParse(value);
  if (!result.success) throw rejected("reply");
  return result.data as T;
}

/** The problem document's status as an error of this program (RFC 9457). */
export function failureOf(response: HttpsResponse): SuiteError {
  let code = "";
  try {
    code = String((JSON.parse(response.body.toString("utf8")) as { code?: unknown }).code ?? "");
  } catch {
    // a proxy's page or nothing: the status says enough
  }
  const details = { status: response.status, code };
  if (response.status === 404)
    return new SuiteError("unknown-recipient", "the directory does not know this person", { fault: "peer", details });
  if (response.status === 401)
    return new SuiteError("auth-failed", "the directory does not accept who we are", { fault: "local", details });
  if (response.status === 403)
    return new SuiteError("forbidden", "the directory does not allow this", { fault: "local", details });
  if (response.status === 422 || response.status === 400)
    return new SuiteError("record-rejected", "the directory refuses the object", { fault: "local", details });
  if (response.status === 502)
    return new SuiteError("record-rejected", "the other domain's directory told something unacceptable", {
      fault: "service",
      details,
    });
  return new SuiteError("directory-unavailable", "the directory cannot answer now", {
    fault: "service",
    temporary: true,
    details,
  });
}
