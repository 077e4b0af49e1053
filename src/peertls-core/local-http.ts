import { createServer } from "node:http";
import type { PeerAddress } from "./connection.ts";
import { listening } from "./listening.ts";
import type { LocalListener } from "./loopback.ts";

export interface LocalAnswer {
  status: number;
  type: string;
  body: string;
}

/**
 * Plain HTTP for programs on this machine that only look: GET alone, no body, one answer a path.
 * @param answer undefined: there is no such path @throws SuiteError config-invalid when the address cannot be bound
 */
export async function listenLocalHttp(
  at: PeerAddress,
  answer: (path: string) => Promise<LocalAnswer | undefined>,
): Promise<LocalListener> {
  const server = createServer({ requestTimeout: 5_000, maxHeaderSize: 8_192 }, (request, response) => {
    const tell = ({ status, type, body }: LocalAnswer) =>
      response.writeHead(status, { "content-type": type, "cache-control": "no-store" }).end(body);
    const plain = (status: number, body: string) => tell({ status, type: "text/plain; charset=utf-8", body });
    if (request.method !== "GET") return void plain(405, "only GET is answered\n");
    const path = URL.parse(request.url ?? "/", "http://localhost")?.pathname;
    if (path === undefined) return void plain(404, "there is no such page\n");
    answer(path).then(
      (found) => (found === undefined ? plain(404, "there is no such page\n") : tell(found)),
      () => plain(500, "this cannot be told now\n"),
    );
  });
  server.maxConnections = 16;
  await listening(server, at);
  const bound = server.address() as { address: string; port: number };
  return {
    address: { host: bound.address, port: bound.port },
    close: () =>
      new Promise((resolve) => {
        server.close(() => resolve());
        server.closeAllConnections();
      }),
  };
}
