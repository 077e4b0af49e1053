import type { Duplex } from "node:stream";
import type { PeerConnection } from "../peertls-core/connection.ts";
import { endedCleanly, type LocalSocket, type LocalTls, listenOnce, upgradeLocal } from "../peertls-core/loopback.ts";
import type { PeerTls } from "../peertls-core/peertls.ts";
import { SuiteError } from "../pki/suite-error.ts";
import { dataToken, hostPort, networkProtocol } from "./grammar.ts";
import { type Reply, reply } from "./reply.ts";

/** A data connection that is open, its TLS done. */
export interface DataConnection {
  stream: Duplex;
  /** Asked after `end`: whether the other side meant it to end there (ftps.md §1.8). */
  endedCleanly(): boolean;
}

/** A data connection that was announced; good for one use and 20 s, and 20 s more once a transfer waits for it. */
export interface DataChannel {
  /** The 229 or 227. */
  readonly announced: Reply;
  /** @throws SuiteError handshake-failed, cancelled when nobody came in time */
  open(signal: AbortSignal): Promise<DataConnection>;
  /** Voids the announcement; what came and was not taken is closed. */
  close(): void;
}

/** How long an announced data connection is waited for (ftps.md §2.8). */
const WAIT_MS = 20_000;

/** EPSV on the peer port: the port is itself, a token says whose data it is, the key of the control connection admits. */
export function peerChannel(
  peerTls: PeerTls,
  control: PeerConnection,
  random: (length: number) => Buffer,
): DataChannel {
  const token = dataToken(random(16));
  const expected = peerTls.expectData({ control, token });
  const connection = expected.connection.then((data) => ({
    stream: data.stream,
    endedCleanly: () => peerTls.endedCleanly(data),
  }));
  const { port } = control.localAddress;
  const announced = reply(229, `Entering Extended Passive Mode, data ${token} (|||${port}|)`);
  return channel(announced, connection, () => expected.cancel());
}

/**
 * EPSV and PASV of the local door: a port of its own on the address that the control connection came to, for one
 * connection from where that came from.
 * @param isProtected whether PROT P is in force when the connection comes
 */
export async function localChannel(
  kind: "EPSV" | "PASV",
  o: { control: LocalSocket; tls: LocalTls; isProtected: () => boolean },
): Promise<DataChannel> {
  const host = o.control.localAddress ?? "";
  const port = await listenOnce({ host, from: o.control.remoteAddress ?? "" });
  const { address } = port;
  let raw: LocalSocket | undefined;
  // TLS begins at accept: curl shakes hands before 150, lftp after it (ftps.md §4).
  const connection = port.connection.then(async (socket) => {
    raw = socket;
    if (!o.isProtected()) return { stream: socket, endedCleanly: () => true };
    const secured = await upgradeLocal(socket, o.tls, { trackEnd: true });
    return { stream: secured, endedCleanly: () => endedCleanly(secured) };
  });
  const announced =
    kind === "EPSV"
      ? reply(229, `Entering extended passive mode (|||${address.port}|).`)
      : reply(227, `Entering passive mode (${hostPort(address.host, address.port)}).`);
  return channel(announced, connection, () => {
    port.close();
    raw?.destroy();
  });
}

/** RFC 2428 §3: whether `EPSV argument` asks for a network protocol that this control connection does not have. */
export function otherProtocol(localAddress: string, argument: string): Reply | undefined {
  const own = networkProtocol(localAddress);
  return argument === own ? undefined : reply(522, `Network protocol not supported (use ${own}).`);
}

function channel(announced: Reply, connection: Promise<DataConnection>, cancel: () => void): DataChannel {
  connection.catch(() => undefined);
  let taken = false;
  let closed = false;
  const close = () => {
    clearTimeout(timer);
    if (taken || closed) return;
    closed = true;
    cancel();
    connection.then(
      ({ stream }) => stream.destroy(),
      () => undefined,
    );
  };
  let timer = setTimeout(close, WAIT_MS);
  return {
    announced,
    close,
    async open(signal) {
      clearTimeout(timer);
      timer = setTimeout(close, WAIT_MS);
      signal.addEventListener("abort", close, { once: true });
      try {
        const data = await connection;
        if (closed) throw new SuiteError("cancelled", "the data connection came too late", { fault: "peer" });
        taken = true;
        return data;
      } finally {
        signal.removeEventListener("abort", close);
        close();
      }
    },
  };
}
