import { createServer, type IncomingMessage, type ServerResponse } from "node:http";
import type { PeerAddress } from "./connection.ts";
import { boundTo, listening } from "./listening.ts";
import type { LocalListener } from "./loopback.ts";

export interface PlainRequest {
  method: "GET" | "POST";
  /** As it stood in the request, still percent-encoded, without the query. */
  path: string;
  type: string | undefined;
  body: Buffer;
}

export interface PlainAnswer {
  status: number;
  type: string;
  body: string | Uint8Array;
  /** Seconds that it may be kept; absent: not at all. */
  maxAge?: number;
}

const MAX_BODY = 16_384;
const MAX_CONNECTIONS = 1_024;

/**
 * Plain HTTP for what is signed in itself and public: revocation lists, OCSP answers. GET, HEAD and POST; a body of 16 KiB at most.
 * @param answer undefined: there is no such path @throws SuiteError config-invalid when the address cannot be bound
 */
export async function listenPlainHttp(
  at: PeerAddress,
  answer: (request: PlainRequest) => PlainAnswer | undefined,
): Promise<LocalListener> {
  const timeouts = { requestTimeout: 10_000, headersTimeout: 10_000, keepAliveTimeout: 30_000, maxHeaderSize: 8_192 };
  const server = createServer({ ...timeouts, noDelay: true }, (request, response) => {
    const { method = "" } = request;
    if (method !== "GET" && method !== "HEAD" && method !== "POST") return tell(response, 405, "not so\n");
    read(request).then(
      (body) => {
        if (body === undefined) return tell(response, 413, "too large\n", true);
        try {
          const path = (request.url ?? "/").split("?")[0] ?? "/";
          const asked = { method: method === "POST" ? ("POST" as const) : ("GET" as const), path, body };
          const found = answer({ ...asked, type: request.headers["content-type"] });
          if (found === undefined) tell(response, 404, "there is no such page\n");
          else send(response, found);
        } catch {
          tell(response, 503, "this cannot be told now\n");
        }
      },
      () => request.destroy(),
    );
  });
  server.maxConnections = MAX_CONNECTIONS;
  await listening(server, at);
  return {
    address: boundTo(server),
    close: () =>
      new Promise((resolve) => {
        server.close(() => resolve());
        server.closeAllConnections();
      }),
  };
}

/** @returns undefined if it is too large */
async function read(request: IncomingMessage): Promise<Buffer | undefined> {
  const parts: Buffer[] = [];
  let size = 0;
  for await (const chunk of request as AsyncIterable<Buffer>) {
    size += chunk.length;
    if (size > MAX_BODY) return undefined;
    parts.push(chunk);
  }
  return Buffer.concat(parts);
}

function tell(response: ServerResponse, status: number, text: string, last = false): void {
  if (last) response.setHeader("connection", "close");
  send(response, { status, type: "text/plain; charset=utf-8", body: text });
}

function send(response: ServerResponse, { status, type, body, maxAge }: PlainAnswer): void {
  const length = typeof body === "string" ? Buffer.byteLength(body) : body.length;
  const cache = maxAge === undefined ? "no-store" : `max-age=${maxAge}, public, no-transform, must-revalidate`;
  response.writeHead(status, { "content-type": type, "content-length": length, "cache-control": cache });
  response.end(body);
}
