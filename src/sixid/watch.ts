import type { HttpsClient } from "../peertls-core/https-client.ts";
import type { Identity } from "../pki/identity.ts";
import type { WatchBody } from "./records.ts";
import { type StreamEvent, StreamReader } from "./server-sent-events.ts";

/** Nothing for so long: the connection is dead. The server says something every 25 s. */
const SILENT_MS = 60_000;

/**
 * What a directory's server tells of people while they are watched, as it comes; ends when the server ends it.
 * @throws SuiteError unreachable, unsupported (not admitted there), limit-exceeded, cancelled
 */
export async function* watch(
  http: HttpsClient,
  know: ReadonlyMap<Identity, WatchBody["know"][string]>,
  signal: AbortSignal,
): AsyncGenerator<StreamEvent, void, undefined> {
  const reader = new StreamReader();
  const body: WatchBody = { know: Object.fromEntries(know) };
  const request = {
    method: "POST",
    path: "/v1/watch",
    headers: { "content-type": "application/json", accept: "text/event-stream" },
    body: JSON.stringify(body),
  };
  for await (const piece of http.stream(request, SILENT_MS, signal)) yield* reader.push(piece);
}
