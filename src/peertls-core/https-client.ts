import { Agent, type ClientRequest, type IncomingMessage, request } from "node:http";
import type { TrustAnchor } from "../pki/path.ts";
import { SuiteError } from "../pki/suite-error.ts";
import type { PeerAddress } from "./connection.ts";
import type { Credentials } from "./credentials.ts";
import { raceInOrder } from "./dial.ts";
import { upgradeServiceClient } from "./service.ts";

export interface HttpsClientOptions {
  /** Where the server may be, best first; asked at every new connection. */
  addresses: () => readonly PeerAddress[] | Promise<readonly PeerAddress[]>;
  serverName: string;
  /** As in `ServiceClientOptions`. */
  indicatedName?: string;
  anchors?: () => readonly TrustAnchor[];
  /** Instead of anchors: the first 128 bits of the root's key hash, 32 hex digits, as an invitation tells them. */
  rootHash?: string;
  /** Shown if the server asks; may change over time. */
  credentials?: () => Credentials | undefined;
  clock: () => Date;
}

export interface HttpsRequest {
  method: string;
  path: string;
  headers?: Readonly<Record<string, string>>;
  body?: string | Buffer;
}

export interface HttpsResponse {
  status: number;
  headers: Readonly<Record<string, string>>;
  body: Buffer;
}

/** A client that keeps its connections. */
export interface HttpsClient {
  /** @throws SuiteError unreachable, handshake-failed, certificate-invalid, limit-exceeded, cancelled; what `addresses` throws */
  request(o: HttpsRequest, signal: AbortSignal): Promise<HttpsResponse>;
  /**
   * An answer that goes on, over a connection of its own: its pieces as they come, until the server ends it, the signal
   * aborts or whoever reads stops. `silentMs`: nothing for so long is the end, too.
   * @throws SuiteError as `request`, before the first piece; "unreachable" when it breaks; "unsupported" with `status` unless that is 200
   */
  stream(o: HttpsRequest, silentMs: number, signal: AbortSignal): AsyncGenerator<Buffer, void, undefined>;
  close(): void;
}

const MAX_RESPONSE = 8 * 1024 * 1024;
const CONNECT_MS = 20_000;
/** One server is waited for so long before the next is asked beside it: their order is their domain's wish (RFC 2782). */
const STAGGER_MS = 1_000;

export function httpsClient(o: HttpsClientOptions): HttpsClient {
  const connected = async () => {
    const ordered = (await o.addresses()).map((address) => ({ address }));
    const { stream } = await raceInOrder(
      ordered,
      (raw) => {
        const credentials = o.credentials?.();
        return upgradeServiceClient(raw, {
          serverName: o.serverName,
          ...(o.indicatedName === undefined ? {} : { indicatedName: o.indicatedName }),
          trust: o.rootHash === undefined ? { anchors: o.anchors?.() ?? [] } : { rootHash: o.rootHash },
          clock: o.clock,
          ...(credentials === undefined ? {} : { credentials }),
        });
      },
      (late) => late.stream.destroy(),
      AbortSignal.timeout(CONNECT_MS),
      STAGGER_MS,
    );
    return stream;
  };
  const agentOf = (options: { keepAlive: boolean; maxSockets?: number; maxFreeSockets?: number }) => {
    const agent = new Agent(options);
    agent.createConnection = (_options, done) => {
      connected().then(
        (stream) => done?.(null, stream),
        (error: Error) => done?.(error, undefined as never),
      );
      return undefined as never; // the connection comes by the callback
    };
    return agent;
  };
  const kept = agentOf({ keepAlive: true, maxSockets: 4, maxFreeSockets: 2 });
  const single = agentOf({ keepAlive: false });

  /** Calls one of both, once. */
  const ask = (
    agent: Agent,
    what: HttpsRequest,
    signal: AbortSignal,
    on: { response: (response: IncomingMessage) => void; failure: (error: SuiteError) => void },
  ): ClientRequest => {
    const fail = (cause: unknown) => on.failure(failureOf(cause, signal));
    const outgoing = request(
      {
        agent,
        method: what.method,
        path: what.path,
        host: o.serverName,
        headers: { host: o.serverName, ...what.headers },
        signal,
      },
      on.response,
    );
    outgoing.on("error", fail);
    outgoing.on("close", () => fail(undefined)); // after a 101 nothing else tells; without effect behind an answer
    outgoing.end(what.body);
    return outgoing;
  };

  return {
    request: (what, signal) =>
      new Promise((resolve, reject) => {
        const response = (incoming: IncomingMessage) => {
          const parts: Buffer[] = [];
          let size = 0;
          incoming.on("error", (cause) => reject(failureOf(cause, signal)));
          incoming.on("data", (chunk: Buffer) => {
            size += chunk.length;
            parts.push(chunk);
            if (size <= MAX_RESPONSE) return;
            incoming.destroy();
            reject(new SuiteError("limit-exceeded", "the service's answer is too large", { fault: "service" }));
          });
          incoming.on("end", () => {
            const headers: Record<string, string> = {};
            for (const [name, value] of Object.entries(incoming.headers))
              if (typeof value === "string") headers[name] = value;
            resolve({ status: incoming.statusCode ?? 0, headers, body: Buffer.concat(parts) });
          });
        };
        ask(kept, what, signal, { response, failure: reject });
      }),
    async *stream(what, silentMs, signal) {
      const silent = new AbortController();
      const until = AbortSignal.any([signal, silent.signal]);
      const timer = setTimeout(() => silent.abort(), silentMs);
      let outgoing: ClientRequest | undefined;
      try {
        const incoming = await new Promise<IncomingMessage>((resolve, reject) => {
          outgoing = ask(single, what, until, { response: resolve, failure: reject });
        });
        const { statusCode: status = 0 } = incoming;
        if (status !== 200)
          throw new SuiteError("unsupported", "the service does not go on telling", {
            fault: "service",
            details: { status },
          });
        for await (const piece of incoming as AsyncIterable<Buffer>) {
          timer.refresh();
          yield piece;
        }
      } catch (error) {
        throw failureOf(error, signal);
      } finally {
        clearTimeout(timer);
        outgoing?.destroy();
      }
    },
    close: () => {
      kept.destroy();
      single.destroy();
    },
  };
}

function failureOf(cause: unknown, signal: AbortSignal): SuiteError {
  if (signal.aborted)
    return new SuiteError("cancelled", "the request was given up", { fault: "local", temporary: true });
  if (cause instanceof SuiteError) return cause;
  return new SuiteError("unreachable", "the service did not answer", { fault: "service", temporary: true, cause });
}
