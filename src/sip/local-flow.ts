import type { PeerAddress } from "../peertls-core/connection.ts";
import type { LocalSocket, LocalUdp } from "../peertls-core/loopback.ts";
import type { StreamFramer } from "./grammar.ts";

/** A program that reads so much of what it is sent not is gone. */
const MAX_UNREAD = 1024 * 1024;

/** The way to and from one of the owner's programs. */
export interface LocalFlow {
  readonly id: string;
  readonly transport: "UDP" | "TCP" | "TLS";
  readonly remote: PeerAddress;
  /** Our side, as it stands in Via and Contact. */
  readonly local: PeerAddress;
  readonly alive: boolean;
  send(bytes: Buffer): void;
}

export function streamFlow(socket: LocalSocket, transport: "TCP" | "TLS"): LocalFlow {
  const remote = { host: socket.remoteAddress ?? "", port: socket.remotePort ?? 0 };
  const local = { host: socket.localAddress ?? "", port: socket.localPort ?? 0 };
  return {
    id: `${transport} ${remote.host} ${remote.port}`,
    transport,
    remote,
    local,
    get alive() {
      return !socket.destroyed && socket.writable;
    },
    send: (bytes) => {
      if (socket.writableLength > MAX_UNREAD) socket.destroy();
      else socket.write(bytes);
    },
  };
}

export function udpFlow(udp: LocalUdp, remote: PeerAddress): LocalFlow {
  return {
    id: `UDP ${remote.host} ${remote.port}`,
    transport: "UDP",
    remote,
    local: udp.address,
    alive: true,
    send: (bytes) => udp.send(bytes, remote),
  };
}

/** `host:port` as headers write it. */
export function hostPort({ host, port }: PeerAddress): string {
  return `${host.includes(":") ? `[${host}]` : host}:${port}`;
}

const MESSAGE_MS = 10_000;

/**
 * A message that has begun is complete in 10 s, however slowly its bytes come.
 * @param running the timer that was set for it, if any
 */
export function messageTimer(
  framer: StreamFramer,
  running: NodeJS.Timeout | undefined,
  late: () => void,
): NodeJS.Timeout | undefined {
  if (framer.midMessage) return running ?? setTimeout(late, MESSAGE_MS);
  clearTimeout(running);
  return undefined;
}
