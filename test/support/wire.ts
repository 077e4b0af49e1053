import { connect, createServer, type Socket } from "node:net";

/** A port in front of another, whose connections a test can cut without either end being told. */
export interface Wire extends AsyncDisposable {
  readonly port: number;
  /** How many connections came so far. */
  readonly count: number;
  /** From now on nothing more goes over the connections that are open; `back`: only nothing more comes back. */
  cut(what?: "both" | "back"): void;
}

export async function startWire(to: { host: string; port: number }): Promise<Wire> {
  const pairs: { client: Socket; server: Socket; cut: boolean }[] = [];
  const listener = createServer((client) => {
    const pair = { client, server: connect(to), cut: false };
    const { server } = pair;
    pairs.push(pair);
    for (const [one, other] of [
      [client, server],
      [server, client],
    ] as const) {
      one.on("error", () => undefined);
      one.on("data", (chunk: Buffer) => void other.write(chunk));
      one.once("close", () => (pair.cut ? undefined : other.destroy()));
    }
  });
  await new Promise<void>((done) => listener.listen(0, "::1", done));
  return {
    port: (listener.address() as { port: number }).port,
    get count() {
      return pairs.length;
    },
    cut(what = "both") {
      for (const pair of pairs) {
        pair.cut = true;
        pair.server.removeAllListeners("data").pause();
        if (what === "both") pair.client.removeAllListeners("data").pause();
      }
    },
    async [Symbol.asyncDispose]() {
      const closed = new Promise((done) => listener.close(done));
      for (const { client, server } of pairs) {
        client.destroy();
        server.destroy();
      }
      await closed;
    },
  };
}
