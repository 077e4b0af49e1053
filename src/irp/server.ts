import type { PeerAddress } from "../peertls-core/connection.ts";
import type { LocalListener } from "../peertls-core/loopback.ts";
import {
  listenService,
  type ServiceCaller,
  type ServiceSocket,
  type ServiceTls,
  upgradeServiceServer,
} from "../peertls-core/service.ts";
import type { Fingerprint } from "../pki/certificate.ts";
import type { Log } from "../pki/log.ts";
import { asSuiteError, SuiteError } from "../pki/suite-error.ts";
import { byCertificate, bySecret } from "./authenticate.ts";
import { crlPath } from "./ca.ts";
import { FrameReader, frame, MAX_FRAME_AFTER, MAX_FRAME_BEFORE } from "./frame.ts";
import { type Reply, type Request, readRequest, writeReply } from "./messages.ts";
import type { Accounts, Applicant } from "./registration.ts";
import { closes, errorReply } from "./reply.ts";
import { answerReady, type RequestServices } from "./requests.ts";
import { MAX_AUTH_FAILURES, MAX_PLAIN_FRAMES, ruling, SECONDS, type SessionState } from "./session.ts";

export interface IrpServerOptions extends RequestServices {
  at: PeerAddress;
  tls: ServiceTls;
  accounts: Accounts;
  /** Where lists are got that are too large for a frame. */
  statusUrl?: string;
  log: Log;
}

/** Serves enrolment on its port: frames in clear up to `starttls`, then TLS 1.3 (irp.md §2.2). */
export function serveIrp(o: IrpServerOptions): Promise<LocalListener> {
  return listenService(o.at, (socket) => {
    serveSocket(socket, o).catch((error: unknown) => {
      o.log.debug({ error: asSuiteError(error), address: socket.remoteAddress }, "enrolment session ended");
      socket.destroy();
    });
  });
}

async function serveSocket(socket: ServiceSocket, o: IrpServerOptions): Promise<void> {
  const plain = new Session(socket, "plain", undefined, o);
  const outcome = await plain.run();
  if (outcome !== "starttls") return;
  const { stream, caller } = await upgradeServiceServer(socket, o.tls);
  await new Session(stream, "tls", caller, o).run();
}

/** One half of a connection: in clear, or inside TLS. Requests are answered in order, one after the other. */
class Session {
  readonly #socket: ServiceSocket;
  readonly #caller: ServiceCaller | undefined;
  readonly #o: IrpServerOptions;
  readonly #reader = new FrameReader();
  #state: SessionState;
  #applicant: Applicant | undefined;
  #lastId = 0;
  #frames = 0;
  #failures = 0;
  readonly #gone = new AbortController();

  constructor(socket: ServiceSocket, state: SessionState, caller: ServiceCaller | undefined, o: IrpServerOptions) {
    this.#socket = socket;
    this.#state = state;
    this.#caller = caller;
    this.#o = o;
  }

  /** @returns `starttls` when `proceed` has been said and TLS is next */
  run(): Promise<"starttls" | "closed"> {
    return new Promise((resolve) => {
      let timer = this.#timer();
      let stuck: NodeJS.Timeout | undefined; // runs while half a frame is there
      let queue = Promise.resolve();
      let waiting = 0;
      let over = false;
      const finish = (outcome: "starttls" | "closed") => {
        if (over) return;
        over = true;
        this.#gone.abort();
        clearTimeout(timer);
        clearTimeout(stuck);
        this.#socket.off("data", take);
        if (outcome === "starttls") this.#socket.pause();
        else this.#hangUp();
        resolve(outcome);
      };
      const answer = async (bytes: Buffer) => {
        if (over) return; // what was sent along with a request that ended the session
        const reply = await this.#answer(bytes);
        waiting -= 1;
        // Bytes that came behind `starttls` in clear must not be taken for something said inside TLS.
        if (reply.type === "proceed" && (waiting > 0 || this.#reader.midFrame || this.#reader.broken !== undefined))
          return void this.#socket.destroy();
        this.#socket.write(frame(writeReply(this.#lastId, reply)));
        clearTimeout(timer);
        timer = this.#timer();
        if (reply.type === "proceed") finish("starttls");
        else if (reply.type === "err" && (closes(reply.code) || this.#failures >= MAX_AUTH_FAILURES)) finish("closed");
      };
      const take = (chunk: Buffer) => {
        const frames = this.#reader.push(chunk);
        if (frames.length > 0 || !this.#reader.midFrame) stuck = void clearTimeout(stuck);
        if (this.#reader.midFrame) stuck ??= setTimeout(() => this.#socket.destroy(), HALF_FRAME_MS);
        waiting += frames.length;
        const flood = waiting > MAX_IN_FLIGHT && new SuiteError("busy", "too many requests at once", { fault: "peer" });
        if (!flood) for (const bytes of frames) queue = queue.then(() => answer(bytes)).catch(() => finish("closed"));
        const failure = flood || this.#reader.broken;
        if (failure === undefined) return;
        this.#socket.off("data", take);
        queue = queue.then(() => {
          if (over) return;
          this.#socket.write(frame(writeReply(this.#lastId, errorReply(failure))));
          finish("closed");
        });
      };
      this.#socket.on("data", take);
      this.#socket.once("close", () => finish("closed"));
      this.#socket.resume();
    });
  }

  async #answer(bytes: Buffer): Promise<Reply> {
    try {
      const { id, request } = readRequest(bytes);
      if (id <= this.#lastId)
        throw new SuiteError("syntax", "ids have to rise", { fault: "peer", details: { code: "bad-frame" } });
      this.#lastId = id;
      this.#frames += 1;
      const ruled = ruling(this.#state, request.type);
      if (!ruled.allowed) return { type: "err", code: ruled.code, text: "not now" };
      if (this.#state === "plain" && this.#frames > MAX_PLAIN_FRAMES)
        return { type: "err", code: "tls-required", text: "not in clear" };
      return await this.#handle(request);
    } catch (error) {
      const reply = errorReply(error);
      if (reply.code === "auth-failed") this.#failures += 1;
      if (reply.code === "internal") this.#o.log.error({ error: asSuiteError(error) }, "an enrolment request failed");
      return reply;
    }
  }

  async #handle(request: Request): Promise<Reply> {
    const { registration } = this.#o;
    switch (request.type) {
      case "hello": {
        if (request.domain !== this.#o.domain)
          throw new SuiteError("not-found", "this server is for another domain", { fault: "peer" });
        const offers = this.#state === "plain" ? { tls: "required" as const } : { auth: "upa sca" };
        return { type: "hello", domain: this.#o.domain, versions: "1", ...offers };
      }
      case "starttls":
        return { type: "proceed" };
      case "cacerts":
        return { type: "cacerts", certificates: registration.chain.map((one) => Buffer.from(one.der)) };
      case "crl":
        return crlReply(request.issuer, this.#o);
      case "auth":
        return this.#authenticate(request);
      default:
        return answerReady(request, this.#ready(), this.#caller?.address.host ?? "", this.#o, this.#gone.signal);
    }
  }

  /** Authenticating again changes the caller. */
  async #authenticate(request: Request & { type: "auth" }): Promise<Reply> {
    this.#applicant = undefined;
    this.#state = "tls";
    this.#reader.limit = MAX_FRAME_BEFORE;
    this.#applicant =
      request.method === "sca"
        ? await byCertificate(this.#caller, this.#o)
        : await bySecret(request.user, request.secret, this.#o);
    this.#state = "ready";
    this.#reader.limit = MAX_FRAME_AFTER;
    const { identity, uuid, roles = [] } = this.#applicant.account;
    const told = this.#applicant.by.method === "certificate" ? roles : []; // they count by certificate alone
    return { type: "ok", identity, uuid, roles: told.join(" ") };
  }

  #ready(): Applicant {
    if (this.#applicant === undefined) throw new SuiteError("auth-failed", "not authenticated", { fault: "peer" });
    return this.#applicant;
  }

  /** The last reply still gets there; who does not hang up then is hung up on. */
  #hangUp(): void {
    this.#socket.end();
    this.#socket.resume();
    const timer = setTimeout(() => this.#socket.destroy(), LINGER_MS);
    this.#socket.once("close", () => clearTimeout(timer));
  }

  #timer(): NodeJS.Timeout {
    return setTimeout(() => this.#socket.destroy(), SECONDS[this.#state] * 1000);
  }
}

const MAX_IN_FLIGHT = 16;
const LINGER_MS = 2_000;
const HALF_FRAME_MS = 10_000;

/** A list that no frame has room for is got by HTTP. */
function crlReply(issuer: string | undefined, { registration, statusUrl }: IrpServerOptions): Reply {
  const list = registration.authority.crl(issuer as Fingerprint | undefined);
  if (list === undefined) throw new SuiteError("not-found", "that is no CA of this domain", { fault: "peer" });
  if ((list.der.length * 4) / 3 > MAX_FRAME_AFTER - 1_024) {
    const [issuing] = registration.chain;
    const where = statusUrl === undefined || issuing === undefined ? "" : `: ${statusUrl}${crlPath(issuing)}`;
    return { type: "err", code: "too-large", text: `the list is got by HTTP${where}` };
  }
  return {
    type: "crl",
    number: list.number,
    next: Math.floor(list.nextUpdate.getTime() / 1000),
    der: Buffer.from(list.der),
  };
}
