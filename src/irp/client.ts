import type { PeerAddress } from "../peertls-core/connection.ts";
import type { Credentials } from "../peertls-core/credentials.ts";
import {
  dialService,
  type ServiceClientOptions,
  type ServiceSocket,
  upgradeServiceClient,
} from "../peertls-core/service.ts";
import { type Certificate, parseCertificate } from "../pki/certificate.ts";
import type { CrlReason } from "../pki/distribution-point.ts";
import { type Identity, parseIdentity } from "../pki/identity.ts";
import { asSuiteError, SuiteError, type SuiteErrorCode } from "../pki/suite-error.ts";
import { FrameReader, frame, MAX_FRAME_AFTER } from "./frame.ts";
import {
  type CertificateFacts,
  type CertificateKind,
  type CertificateStatus,
  type ErrorCode,
  type Reply,
  type Request,
  readReply,
  writeRequest,
} from "./messages.ts";

export interface IrpConnectOptions {
  /** Of several the first that can be reached. */
  address: PeerAddress | readonly PeerAddress[];
  /** The source domain: what the server's certificate has to name. */
  domain: string;
  trust: ServiceClientOptions["trust"];
  credentials?: Credentials;
  clock: () => Date;
}

export interface IssuedCertificate {
  /** Leaf first, then its issuers, without the root. */
  certificates: readonly Certificate[];
  renewAfter: Date;
  status: CertificateStatus;
}

/** A request that a person has to approve first: `ref` asks for it again. */
export interface PendingCertificate {
  ref: string;
  retrySeconds: number;
}

/** @throws SuiteError of the last one */
async function dialFirst(addresses: readonly PeerAddress[], signal: AbortSignal): Promise<ServiceSocket> {
  let failure = new SuiteError("unreachable", "no address of the enrolment server is known", {
    fault: "service",
    temporary: true,
  });
  for (const address of addresses) {
    try {
      return await dialService(address, signal);
    } catch (error) {
      failure = asSuiteError(error);
      if (signal.aborted) break;
    }
  }
  throw failure;
}

/** A session with an enrolment server, inside TLS. */
export class IrpClient {
  /** The CA certificate by which the server was proven: what an enrolling node pins. */
  readonly root: Certificate;
  readonly #channel: Channel;

  private constructor(root: Certificate, channel: Channel) {
    this.root = root;
    this.#channel = channel;
  }

  /** @throws SuiteError unreachable, handshake-failed, certificate-invalid, syntax, not-found */
  static async connect(o: IrpConnectOptions, signal: AbortSignal): Promise<IrpClient> {
    const socket = await dialFirst("host" in o.address ? [o.address] : o.address, signal);
    try {
      const plain = new Channel(socket, signal);
      const hello = await plain.ask({ type: "hello", domain: o.domain }, "hello");
      if (!hello.versions.split(" ").includes("1"))
        throw new SuiteError("unsupported", "the server speaks another version", { fault: "service" });
      await plain.ask({ type: "starttls" }, "proceed"); // without `proceed` nothing is ever said in clear
      plain.release();
      const upgrade = {
        serverName: o.domain,
        trust: o.trust,
        clock: o.clock,
        ...(o.credentials === undefined ? {} : { credentials: o.credentials }),
      };
      const { stream, root } = await upgradeServiceClient(socket, upgrade);
      const channel = new Channel(stream, signal);
      await channel.ask({ type: "hello", domain: o.domain }, "hello");
      return new IrpClient(root, channel);
    } catch (error) {
      socket.destroy();
      throw error;
    }
  }

  /** @throws SuiteError auth-failed, busy with `retrySeconds` */
  async authenticate(
    user: string,
    secret: { code: string } | { password: string },
  ): Promise<{ identity: Identity; uuid: string }> {
    return account(await this.#channel.ask({ type: "auth", method: "upa", user, secret }, "ok"));
  }

  /** By the certificate shown in the handshake. @throws SuiteError auth-failed */
  async authenticateByCertificate(): Promise<{ identity: Identity; uuid: string }> {
    return account(await this.#channel.ask({ type: "auth", method: "sca" }, "ok"));
  }

  async cacerts(): Promise<Certificate[]> {
    const { certificates } = await this.#channel.ask({ type: "cacerts" }, "cacerts");
    return certificates.map((der) => parseCertificate(der));
  }

  /** @throws SuiteError forbidden, syntax, conflict, busy */
  async enrol(kind: CertificateKind, csr: Buffer, label?: string): Promise<IssuedCertificate | PendingCertificate> {
    return this.#certificate({ type: "csr", kind, der: csr, ...(label === undefined ? {} : { label }) });
  }

  /** Asks again for what waits to be approved. @throws as enrol; not-found */
  async pending(ref: string): Promise<IssuedCertificate | PendingCertificate> {
    return this.#certificate({ type: "pending", ref });
  }

  /** @throws as enrol */
  async renew(
    kind: CertificateKind,
    mode: "same" | "new",
    csr: Buffer,
  ): Promise<IssuedCertificate | PendingCertificate> {
    return this.#certificate({ type: "renew", kind, mode, der: csr });
  }

  /** @throws SuiteError not-found, forbidden */
  async revoke(serial: string, reason: CrlReason): Promise<void> {
    await this.#channel.ask({ type: "revoke", serial, reason }, "ok");
  }

  /** One's own certificates, or another person's, if they may be seen. @throws SuiteError not-found */
  async certificates(asked: Omit<Request & { type: "certs" }, "type">): Promise<readonly CertificateFacts[]> {
    return (await this.#channel.ask({ type: "certs", ...asked }, "certs")).certs;
  }

  /** @throws SuiteError not-found */
  async certificate(asked: Omit<Request & { type: "getCert" }, "type">): Promise<IssuedCertificate> {
    return issued(await this.#channel.ask({ type: "getCert", ...asked }, "cert"));
  }

  /** Any message of the profile, for what has no method of its own. @throws SuiteError of the server's error */
  ask<T extends Reply["type"]>(request: Request, expected: T): Promise<Reply & { type: T }> {
    return this.#channel.ask(request, expected);
  }

  async #certificate(request: Request): Promise<IssuedCertificate | PendingCertificate> {
    const reply = await this.#channel.ask(request, "cert", "pending");
    return reply.type === "pending" ? { ref: reply.ref, retrySeconds: reply.retry } : issued(reply);
  }

  close(): void {
    this.#channel.end();
  }
}

function account({ identity, uuid }: Reply & { type: "ok" }): { identity: Identity; uuid: string } {
  if (identity === undefined || uuid === undefined)
    throw new SuiteError("syntax", "the server does not say who one is", { fault: "service" });
  return { identity: parseIdentity(identity), uuid };
}

function issued(reply: Reply & { type: "cert" }): IssuedCertificate {
  return {
    certificates: reply.certificates.map((der) => parseCertificate(der)),
    renewAfter: new Date(reply.renewAfter * 1000),
    status: reply.status,
  };
}

const ANSWER_MS = 30_000;

/** One question, one answer. */
class Channel {
  readonly #socket: ServiceSocket;
  readonly #signal: AbortSignal;
  readonly #reader = new FrameReader();
  readonly #answers: Buffer[] = [];
  #arrived: (() => void) | undefined;
  #failure: SuiteError | undefined;
  #id = 0;

  constructor(socket: ServiceSocket, signal: AbortSignal) {
    this.#socket = socket;
    this.#signal = signal;
    this.#reader.limit = MAX_FRAME_AFTER;
    socket.on("data", this.#take);
    socket.on("close", this.#closed);
    socket.on("error", this.#closed);
    signal.addEventListener("abort", this.#closed, { once: true });
  }

  async ask<T extends Reply["type"]>(request: Request, ...expected: T[]): Promise<Reply & { type: T }> {
    this.#id += 1;
    this.#socket.write(frame(writeRequest(this.#id, request)));
    const timer = setTimeout(this.#closed, ANSWER_MS);
    try {
      while (this.#answers.length === 0) {
        if (this.#failure !== undefined) throw this.#failure;
        await new Promise<void>((resolve) => {
          this.#arrived = resolve;
        });
      }
    } finally {
      clearTimeout(timer);
    }
    const { id, reply } = readReply(this.#answers.shift() as Buffer);
    if (reply.type === "err") throw failureOf(reply);
    if (id !== this.#id || !(expected as string[]).includes(reply.type))
      throw new SuiteError("syntax", "the server answers something else", { fault: "service" });
    return reply as Reply & { type: T };
  }

  /** Lets go of the socket, for TLS to take it. */
  release(): void {
    this.#socket.off("data", this.#take);
    this.#socket.off("close", this.#closed);
    this.#socket.off("error", this.#closed);
    this.#signal.removeEventListener("abort", this.#closed);
  }

  end(): void {
    this.#socket.end();
  }

  readonly #take = (chunk: Buffer) => {
    this.#answers.push(...this.#reader.push(chunk));
    if (this.#reader.broken !== undefined) this.#failure ??= this.#reader.broken;
    this.#arrived?.();
  };

  readonly #closed = () => {
    this.#failure ??= new SuiteError("unreachable", "the enrolment server closed the connection", {
      fault: "service",
      temporary: true,
    });
    this.#socket.destroy();
    this.#arrived?.();
  };
}

const CODES: Partial<Record<ErrorCode, SuiteErrorCode>> = {
  "auth-failed": "auth-failed",
  "auth-required": "auth-failed",
  forbidden: "forbidden",
  policy: "forbidden",
  "bad-csr": "syntax",
  "bad-xml": "syntax",
  "bad-frame": "syntax",
  "weak-key": "syntax",
  "key-in-use": "conflict",
  stale: "conflict",
  "not-found": "not-found",
  busy: "busy",
  "too-large": "limit-exceeded",
  upstream: "unreachable",
};

function failureOf(reply: Reply & { type: "err" }): SuiteError {
  const details = {
    code: reply.code,
    text: reply.text.slice(0, 200),
    ...(reply.retry === undefined ? {} : { retrySeconds: reply.retry }),
  };
  return new SuiteError(CODES[reply.code] ?? "internal", "the enrolment server refuses", {
    fault: "service",
    temporary: reply.code === "busy" || reply.code === "upstream",
    details,
  });
}
