import {
  createServer as createHttpServer,
  type Server as HttpServer,
  type IncomingMessage,
  type ServerResponse,
} from "node:http";
import { createServer, type Socket } from "node:net";
import { connect, createSecureContext, type SecureContext, TLSSocket } from "node:tls";
import { type Certificate, type PeerCertificate, parseCertificate, peerCertificate } from "../pki/certificate.ts";
import type { Log } from "../pki/log.ts";
import { serverNameMatches, type TrustAnchor, validatePath } from "../pki/path.ts";
import { asSuiteError, SuiteError } from "../pki/suite-error.ts";
import type { PeerAddress } from "./connection.ts";
import { type Credentials, certificatesPem } from "./credentials.ts";
import { openTcp } from "./dial.ts";
import { sentWith } from "./handshake.ts";
import { listening } from "./listening.ts";
import type { LocalListener } from "./loopback.ts";
import { RefusalSecret } from "./refusal.ts";

/** A connection to or from a service (SixID, IRP). Never a `PeerConnection`: a certificate is optional here. */
export type ServiceSocket = Socket;

/** Who calls a service: with a certificate whose path is valid to an accepted anchor, or anonymously. */
export interface ServiceCaller {
  certificate?: PeerCertificate;
  /** The anchor's name. */
  anchor?: string;
  /** What an anonymous caller showed: its issuer was unknown when it came. */
  presented?: { leaf: Certificate; sent: readonly Certificate[] };
  address: PeerAddress;
}

export interface ServiceTls {
  credentials: Credentials | (() => Credentials);
  /** Others to show to who asks for this server name. */
  credentialsFor?: (serverName: string) => Credentials | undefined;
  /** Whose certificates count; all others' make an anonymous caller. */
  clientAnchors: () => readonly TrustAnchor[];
  /** Whether its issuer took it back; absent: nobody is asked. */
  revoked?: (certificate: Certificate) => boolean;
  clock: () => Date;
  log: Log;
}

const HANDSHAKE_MS = 10_000;

/**
 * TLS 1.3 as a service's server on an open connection. No certificate, or one of an unknown issuer: anonymous. One that is
 * expired, revoked, badly signed or not for this purpose: its alert, and the end.
 * @throws SuiteError syntax when bytes came in clear behind the upgrade command; handshake-failed; certificate-invalid
 */
export function upgradeServiceServer(
  raw: ServiceSocket,
  tls: ServiceTls,
): Promise<{ stream: ServiceSocket; caller: ServiceCaller }> {
  raw.removeAllListeners("data");
  const address = { host: raw.remoteAddress ?? "", port: raw.remotePort ?? 0 };
  if (raw.readableLength > 0) {
    raw.destroy();
    return Promise.reject(new SuiteError("syntax", "bytes came in clear behind the TLS upgrade", { fault: "peer" }));
  }
  const socket = new TLSSocket(raw, {
    isServer: true,
    secureContext: serviceContext(tls.credentials),
    requestCert: true,
    rejectUnauthorized: false,
    SNICallback: (serverName, done) => {
      const others = tls.credentialsFor?.(serverName.toLowerCase());
      done(null, others === undefined ? undefined : serviceContext(others));
    },
  });
  const secret = new RefusalSecret(socket, "server");
  return settled(raw, socket, secret, "secure", () => {
    const leaf = socket.getPeerX509Certificate();
    if (leaf === undefined) return { caller: { address } };
    const certificate = parseCertificate(leaf.raw);
    const sent = sentWith(leaf);
    const path = validatePath({
      leaf: certificate,
      candidates: sent,
      anchors: tls.clientAnchors(),
      time: tls.clock(),
      purpose: "peer",
    });
    if (path.ok && tls.revoked?.(certificate) === true) return { alert: 44 };
    if (path.ok) return { caller: { certificate: peerCertificate(certificate), anchor: path.anchor.name, address } };
    if (path.reason === "issuer-unknown") return { caller: { address, presented: { leaf: certificate, sent } } };
    return { alert: path.reason === "expired" || path.reason === "not-yet-valid" ? 45 : 42 };
  }).then(({ caller }) => ({ stream: socket, caller: caller ?? { address } }));
}

export interface ServiceClientOptions {
  /** The DNS name that the server's certificate has to show. */
  serverName: string;
  /** What to ask for instead (SNI), where a server has several certificates of that name. */
  indicatedName?: string;
  /** Anchors, or what an invitation tells of the root: the first 128 bits of its key's SHA-256, 32 hex digits. */
  trust: { anchors: readonly TrustAnchor[] } | { rootHash: string };
  credentials?: Credentials;
  clock: () => Date;
}

/**
 * TLS 1.3 as a service's client on an open connection; the server is proven before our certificate leaves.
 * @returns also the CA certificate that the path ends at
 * @throws SuiteError certificate-invalid, handshake-failed
 */
export function upgradeServiceClient(
  raw: ServiceSocket,
  o: ServiceClientOptions,
): Promise<{ stream: ServiceSocket; root: Certificate }> {
  raw.removeAllListeners("data");
  const socket = connect({
    socket: raw,
    secureContext:
      o.credentials === undefined
        ? createSecureContext({ ca: [], minVersion: "TLSv1.3" })
        : serviceContext(o.credentials),
    rejectUnauthorized: false,
    checkServerIdentity: () => undefined,
    servername: o.indicatedName ?? o.serverName,
  });
  const secret = new RefusalSecret(socket, "client");
  return settled(raw, socket, secret, "secureConnect", () => {
    const leaf = socket.getPeerX509Certificate();
    if (leaf === undefined) return { alert: 42 };
    const certificate = parseCertificate(leaf.raw);
    const sent = sentWith(leaf);
    const { trust } = o;
    const anchors =
      "anchors" in trust
        ? trust.anchors
        : sent
            .filter((one) => one.fingerprint.startsWith(trust.rootHash))
            .map((one) => ({ name: "invitation", certificate: one }));
    const path = validatePath({ leaf: certificate, candidates: sent, anchors, time: o.clock(), purpose: "server" });
    if (!path.ok)
      return {
        alert: path.reason === "issuer-unknown" ? 48 : path.reason === "expired" ? 45 : 42,
        reason: path.reason,
      };
    if (!serverNameMatches(certificate, o.serverName)) return { alert: 42, reason: "server-name" };
    return { root: path.anchor.certificate };
  }).then(({ root }) => ({ stream: socket, root: root as Certificate }));
}

interface Judgement {
  alert?: number;
  reason?: string;
  caller?: ServiceCaller;
  root?: Certificate;
}

/** Waits for the handshake, judges in the same tick, refuses by a real alert. */
function settled(
  raw: Socket,
  socket: TLSSocket,
  secret: RefusalSecret,
  event: "secure" | "secureConnect",
  judge: () => Judgement,
): Promise<Judgement> {
  raw.on("error", () => undefined);
  return new Promise((resolve, reject) => {
    const timer = setTimeout(() => socket.destroy(), HANDSHAKE_MS);
    let cause: Error | undefined;
    socket.on("error", (error) => {
      cause ??= error;
    });
    socket.once("close", () => {
      clearTimeout(timer);
      secret.forget();
      reject(new SuiteError("handshake-failed", "the TLS handshake failed", { fault: "peer", temporary: true, cause }));
    });
    socket.once(event, () => {
      clearTimeout(timer);
      let judgement: Judgement;
      try {
        judgement = judge();
      } catch (error) {
        judgement = { alert: 42, reason: asSuiteError(error).code };
      }
      if (judgement.alert !== undefined) {
        reject(
          new SuiteError("certificate-invalid", "the other side's certificate is not acceptable", {
            fault: "peer",
            details: {
              alert: judgement.alert,
              ...(judgement.reason === undefined ? {} : { reason: judgement.reason }),
            },
          }),
        );
        secret.refuse(raw, judgement.alert);
        return;
      }
      secret.forget();
      resolve(judgement);
    });
  });
}

/** Opens a plain listener for a service that upgrades to TLS itself (IRP). */
export async function listenService(
  at: PeerAddress,
  onSocket: (socket: ServiceSocket) => void,
): Promise<LocalListener> {
  const open = new Set<Socket>();
  const server = createServer({ noDelay: true }, (socket) => {
    open.add(socket);
    socket.once("close", () => open.delete(socket));
    socket.on("error", () => undefined);
    onSocket(socket);
  });
  await listening(server, at);
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

/** @throws SuiteError unreachable, cancelled */
export function dialService(address: PeerAddress, signal: AbortSignal): Promise<ServiceSocket> {
  return openTcp(address, signal);
}

/** An HTTPS server whose sockets the core owns. Fastify gets `serverFactory` and is never told to listen itself. */
export interface HttpsService {
  serverFactory(handler: (request: IncomingMessage, response: ServerResponse) => void): HttpServer;
  /** @param socket `request.raw.socket` */
  callerOf(socket: object): ServiceCaller;
  listen(): Promise<PeerAddress>;
  close(): Promise<void>;
}

export function httpsService(o: ServiceTls & PeerAddress): HttpsService {
  const callers = new WeakMap<object, ServiceCaller>();
  let http: HttpServer | undefined;
  let listener: LocalListener | undefined;
  return {
    serverFactory: (handler) => {
      http = createHttpServer(
        { maxHeaderSize: 16_384, headersTimeout: 10_000, requestTimeout: 10_000, keepAliveTimeout: 300_000 },
        handler,
      );
      return http;
    },
    callerOf: (socket) => callers.get(socket) ?? { address: { host: "", port: 0 } },
    listen: async () => {
      listener = await listenService({ host: o.host, port: o.port }, (raw) => {
        upgradeServiceServer(raw, o).then(
          ({ stream, caller }) => {
            callers.set(stream, caller);
            http?.emit("connection", stream);
          },
          (error: unknown) =>
            o.log.debug({ error: asSuiteError(error).code, address: raw.remoteAddress }, "service handshake failed"),
        );
      });
      return listener.address;
    },
    close: async () => {
      http?.closeAllConnections();
      await listener?.close();
    },
  };
}

function serviceContext(credentials: Credentials | (() => Credentials)): SecureContext {
  const own = typeof credentials === "function" ? credentials() : credentials;
  const known = CONTEXTS.get(own);
  if (known !== undefined) return known;
  const made = createSecureContext({
    key: own.privateKey.export({ type: "pkcs8", format: "pem" }),
    cert: certificatesPem(own),
    ca: [],
    minVersion: "TLSv1.3",
    sessionIdContext: "sixtalk-service",
  });
  CONTEXTS.set(own, made);
  return made;
}

const CONTEXTS = new WeakMap<Credentials, SecureContext>();
