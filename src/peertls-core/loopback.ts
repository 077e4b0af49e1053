import { createSocket } from "node:dgram";
import { chmodSync, rmSync } from "node:fs";
import { connect, createServer, type Socket } from "node:net";
import { createSecureContext, TLSSocket } from "node:tls";
import { SuiteError } from "../pki/suite-error.ts";
import type { PeerAddress } from "./connection.ts";
import { openTcp } from "./dial.ts";
import { listening } from "./listening.ts";
import { endOf, RecordTap, trackEnd } from "./record-tap.ts";

/** A connection of the owner's own program. Never a peer: it proves itself by an app password, not by the gate. */
export type LocalSocket = Socket;

export interface LocalListener {
  readonly address: PeerAddress;
  /** Stops accepting and ends what is open. */
  close(): Promise<void>;
}

/** Key and certificate of the local listeners: made for localhost by the node, never the person's own. */
export interface LocalTls {
  certificatePem: string;
  keyPem: string;
}

/**
 * Opens a listener for the owner's programs. With `tls` it is implicit TLS, 1.2 or newer: `onSocket` gets the secured
 * socket once the handshake is done.
 * @throws SuiteError config-invalid when the address cannot be bound
 */
export async function listenLocal(
  o: { host: string; port: number; tls?: LocalTls },
  onSocket: (socket: LocalSocket) => void,
): Promise<LocalListener> {
  const open = new Set<Socket>();
  const server = createServer({ noDelay: true, allowHalfOpen: false }, (raw) => {
    open.add(raw);
    raw.once("close", () => open.delete(raw));
    raw.on("error", () => undefined);
    if (o.tls === undefined) onSocket(raw);
    else upgradeLocal(raw, o.tls).then(onSocket, () => raw.destroy());
  });
  await listening(server, o);
  const bound = server.address() as { address: string; port: number };
  return {
    address: { host: bound.address, port: bound.port },
    close: () =>
      new Promise((resolve) => {
        server.close(() => resolve());
        for (const socket of open) socket.destroy();
      }),
  };
}

/**
 * TLS on an open connection (STARTTLS, AUTH TLS, data channels). Whatever came in clear behind the command is discarded:
 * it must not be taken for something said inside TLS.
 * @param trackEnd makes `endedCleanly` answer for the secured socket; costs some throughput
 * @throws SuiteError handshake-failed
 */
export function upgradeLocal(
  socket: LocalSocket,
  tls: LocalTls,
  options: { trackEnd?: boolean } = {},
): Promise<LocalSocket> {
  socket.removeAllListeners("data");
  socket.pause();
  while (socket.read() !== null);
  const tap = options.trackEnd === true ? new RecordTap(socket) : undefined;
  const secured = new TLSSocket((tap ?? socket) as Socket, { isServer: true, secureContext: localContext(tls) });
  if (tap !== undefined) trackEnd(secured, tap);
  return new Promise((resolve, reject) => {
    const fail = (cause?: Error) => {
      clearTimeout(timer);
      socket.off("close", gone);
      secured.destroy();
      socket.destroy();
      reject(
        new SuiteError("handshake-failed", "the TLS handshake of a local program failed", {
          fault: "peer",
          ...(cause === undefined ? {} : { cause }),
        }),
      );
    };
    const gone = () => fail(); // below a tap the end of the connection does not show by itself
    const timer = setTimeout(fail, HANDSHAKE_MS);
    socket.once("close", gone);
    secured.once("error", fail);
    secured.once("close", fail);
    secured.once("secure", () => {
      clearTimeout(timer);
      socket.off("close", gone);
      secured.off("error", fail);
      secured.off("close", fail);
      secured.on("error", () => undefined);
      resolve(secured);
    });
  });
}

/**
 * Whether the stream of a socket upgraded with `trackEnd` ended by close_notify: a bare FIN may be an attacker's, or a
 * killed program's. In clear a FIN is all there is.
 */
export function endedCleanly(socket: LocalSocket): boolean {
  return endOf(socket) !== "cut";
}

/** A port for one connection. */
export interface OneShot {
  readonly address: PeerAddress;
  /** Rejects SuiteError cancelled on `close`. */
  readonly connection: Promise<LocalSocket>;
  /** Stops listening; a connection that came stays open. */
  close(): void;
}

/**
 * Opens a port of the system's choice for one connection (FTP data): it is closed as soon as that came. Whoever comes from
 * another address than `from` is reset, and the port stays open.
 * @throws SuiteError config-invalid when the address cannot be bound
 */
export async function listenOnce(o: { host: string; from: string }): Promise<OneShot> {
  const { promise, resolve, reject } = Promise.withResolvers<LocalSocket>();
  promise.catch(() => undefined);
  const server = createServer({ noDelay: true, allowHalfOpen: false }, (raw) => {
    raw.on("error", () => undefined);
    if (!server.listening || raw.remoteAddress !== o.from) {
      raw.resetAndDestroy();
      return;
    }
    server.close();
    resolve(raw);
  });
  await listening(server, { host: o.host, port: 0 });
  const bound = server.address() as { address: string; port: number };
  return {
    address: { host: bound.address, port: bound.port },
    connection: promise,
    close() {
      if (server.listening) server.close();
      reject(new SuiteError("cancelled", "the data port was closed", { fault: "peer", temporary: true }));
    },
  };
}

const HANDSHAKE_MS = 10_000;

function localContext(tls: LocalTls) {
  const known = CONTEXTS.get(tls);
  if (known !== undefined) return known;
  const made = createSecureContext({
    key: tls.keyPem,
    cert: tls.certificatePem,
    minVersion: "TLSv1.2",
    sessionIdContext: "sixtalk-local",
  });
  CONTEXTS.set(tls, made);
  return made;
}

const CONTEXTS = new WeakMap<LocalTls, ReturnType<typeof createSecureContext>>();

/** A datagram socket for the owner's programs. */
export interface LocalUdp extends LocalListener {
  send(bytes: Uint8Array, to: PeerAddress): void;
}

export function listenUdp(
  o: { host: string; port: number },
  onDatagram: (bytes: Buffer, from: PeerAddress) => void,
): Promise<LocalUdp> {
  const socket = createSocket(o.host.includes(":") ? "udp6" : "udp4");
  socket.on("message", (bytes, from) => onDatagram(bytes, { host: from.address, port: from.port }));
  return new Promise((resolve, reject) => {
    socket.once("error", (cause) =>
      reject(new SuiteError("config-invalid", "cannot listen there", { fault: "local", cause, details: { ...o } })),
    );
    socket.bind({ address: o.host, port: o.port }, () => {
      socket.removeAllListeners("error");
      socket.on("error", () => undefined);
      const bound = socket.address();
      resolve({
        address: { host: bound.address, port: bound.port },
        send: (bytes, to) => socket.send(bytes, to.port, to.host),
        close: () => new Promise((done) => socket.close(() => done())),
      });
    });
  });
}

/** A connection to a program on this machine, e.g. a data channel in active mode. @throws SuiteError unreachable, cancelled */
export function dialLocal(address: PeerAddress, signal: AbortSignal): Promise<LocalSocket> {
  return openTcp(address, signal);
}

/** The control socket: mode 0600, a stale one is replaced. @throws SuiteError conflict when a live process listens there */
export async function listenUnix(
  path: string,
  onSocket: (socket: LocalSocket) => void,
): Promise<{ close(): Promise<void> }> {
  const live = await dialUnix(path, AbortSignal.timeout(1_000)).catch(() => undefined);
  if (live !== undefined) {
    live.destroy();
    throw new SuiteError("conflict", "a node is running in this home already", { fault: "local", details: { path } });
  }
  rmSync(path, { force: true });
  const open = new Set<Socket>();
  const server = createServer((socket) => {
    open.add(socket);
    socket.once("close", () => open.delete(socket));
    socket.on("error", () => undefined);
    onSocket(socket);
  });
  const mask = process.umask(0o177); // the socket is never, not even for a moment, open to others
  try {
    await new Promise<void>((resolve, reject) => {
      server.once("error", (cause) =>
        reject(
          new SuiteError("config-invalid", "cannot open the control socket", {
            fault: "local",
            cause,
            details: { path },
          }),
        ),
      );
      server.listen(path, resolve);
    });
  } finally {
    process.umask(mask);
  }
  chmodSync(path, 0o600);
  return {
    close: () =>
      new Promise((resolve) => {
        server.close(() => resolve());
        for (const socket of open) socket.destroy();
      }),
  };
}

/** @throws SuiteError unreachable when nothing listens there */
export function dialUnix(path: string, signal: AbortSignal): Promise<LocalSocket> {
  return new Promise((resolve, reject) => {
    const socket = connect({ path });
    const fail = (cause?: unknown) => {
      socket.destroy();
      reject(
        new SuiteError("unreachable", "no node is running there", {
          fault: "local",
          temporary: true,
          cause,
          details: { path },
        }),
      );
    };
    const abort = () => fail();
    signal.addEventListener("abort", abort, { once: true });
    socket.once("error", fail);
    socket.once("connect", () => {
      signal.removeEventListener("abort", abort);
      socket.off("error", fail);
      resolve(socket);
    });
  });
}
