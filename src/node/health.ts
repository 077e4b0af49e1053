import { Gauge } from "prom-client";
import type { PeerAddress } from "../peertls-core/connection.ts";
import { type LocalAnswer, listenLocalHttp } from "../peertls-core/local-http.ts";
import type { LocalListener } from "../peertls-core/loopback.ts";
import type { PeerNode } from "./node.ts";

const SECOND = 1_000;

/** Numbers and readiness for whoever watches this machine. */
export function serveHealth(at: PeerAddress, node: PeerNode, clock: () => Date): Promise<LocalListener> {
  const { registry } = node;
  new Gauge({
    name: "peertls_expiry_seconds",
    help: "seconds until the own certificates end",
    labelNames: ["use"],
    registers: [registry],
    collect() {
      const left = (end: Date) => (end.getTime() - clock().getTime()) / SECOND;
      this.set({ use: "auth" }, left(node.keys.auth.certificate.validity.notAfter));
      const [encryption] = node.keys.encryption;
      if (encryption !== undefined) this.set({ use: "encryption" }, left(encryption.certificate.validity.notAfter));
    },
  });
  new Gauge({
    name: "peertls_revocation_age_seconds",
    help: "age of the oldest revocation list in use",
    registers: [registry],
    collect() {
      const ages = node.revocations.sources.flatMap(({ thisUpdate }) =>
        thisUpdate === undefined ? [] : (clock().getTime() - thisUpdate.getTime()) / SECOND,
      );
      this.set(Math.max(0, ...ages));
    },
  });
  const pages: Record<string, () => Promise<LocalAnswer>> = {
    "/metrics": async () => ({ status: 200, type: registry.contentType, body: await registry.metrics() }),
    "/healthz": async () => text(200, "alive\n"),
    "/readyz": async () => {
      const missing = unready(node, clock());
      return missing.length === 0 ? text(200, "ready\n") : text(503, missing.map((one) => `${one}\n`).join(""));
    },
  };
  return listenLocalHttp(at, async (path) => pages[path]?.());
}

/** Why the node is not all there. */
function unready(node: PeerNode, now: Date): string[] {
  const { peerTls, keys, announcer, store } = node;
  return [
    ...(peerTls.address === undefined ? ["the peer port is closed"] : []),
    ...(keys.auth.certificate.validity.notAfter < now ? ["the own certificate has ended"] : []),
    ...(announcer.state === "available" ? [] : ["the directory is away"]),
    ...(node.reloadFailed ? ["the last reload failed; what was before is in force"] : []),
    ...(healthy(store) ? [] : ["the store fails"]),
  ];
}

function healthy({ health }: PeerNode["store"]): boolean {
  try {
    health.check();
    return true;
  } catch {
    return false;
  }
}

function text(status: number, body: string): LocalAnswer {
  return { status, type: "text/plain; charset=utf-8", body };
}
