import type { OwnerAccess } from "../delivery/owner-access.ts";
import type { LocalSocket, LocalUdp } from "../peertls-core/loopback.ts";
import type { Identity } from "../pki/identity.ts";
import type { Log } from "../pki/log.ts";
import { asSuiteError, SuiteError } from "../pki/suite-error.ts";
import { Digest } from "./digest.ts";
import {
  type Framed,
  parseDatagram,
  type SipHeader,
  type SipRequest,
  type SipResponse,
  StreamFramer,
  value,
} from "./grammar.ts";
import { localParties, registeredParties } from "./identity.ts";
import { textOf } from "./instant.ts";
import { hostPort, type LocalFlow, messageTimer, streamFlow, udpFlow } from "./local-flow.ts";
import { responseTo, serialise, withReceived } from "./message.ts";
import { precondition } from "./precondition.ts";
import { type Binding, Registrar } from "./registrar.ts";
import { statusOfThrown } from "./reply.ts";
import { ClientTransactions, responseKey, ServerTransactions, transactionKey } from "./transactions.ts";
import { sipUriOf } from "./uri.ts";

const ALLOW: SipHeader = { name: "allow", value: "REGISTER, MESSAGE, OPTIONS" };
const KNOWN = new Set([
  "INVITE",
  "ACK",
  "BYE",
  "CANCEL",
  "SUBSCRIBE",
  "NOTIFY",
  "PUBLISH",
  "INFO",
  "REFER",
  "UPDATE",
  "PRACK",
]);
const AUTHENTICATE_MS = 30_000;
const MAX_STREAMS = 64;

export interface LocalSipOptions {
  access: OwnerAccess;
  clock: () => Date;
  random: (length: number) => Buffer;
  log: Log;
  /** Takes a text of the owner durably. `delivered` if the peer had it within 1.5 s, else `accepted`. */
  submit: (to: Identity, text: string) => Promise<"delivered" | "accepted">;
  /** A program registered: what it missed is due. */
  onRegistered: (app: string) => void;
}

/** The owner's own SIP programs: a registrar with digest, and MESSAGE in both directions, over UDP, TCP and TLS. */
export class LocalSip {
  readonly #o: LocalSipOptions;
  readonly #digest: Digest;
  readonly #registrar: Registrar;
  readonly #server = new ServerTransactions();
  readonly #client = new ClientTransactions();
  readonly #udp = new Map<string, LocalFlow>();
  #streams = 0;

  constructor(options: LocalSipOptions) {
    this.#o = options;
    this.#digest = new Digest(options.access, options.random, options.clock);
    this.#registrar = new Registrar(options.clock);
  }

  get bindings(): Binding[] {
    return this.#registrar.bindings;
  }

  acceptStream(socket: LocalSocket, transport: "TCP" | "TLS"): void {
    if (this.#streams >= MAX_STREAMS) return void socket.destroy();
    this.#streams += 1;
    const flow = streamFlow(socket, transport);
    const framer = new StreamFramer();
    const session = { app: undefined as string | undefined };
    // A program that says nothing useful for 30 s is none; a message that has begun is complete in 10 s.
    const silent = setTimeout(() => session.app ?? socket.destroy(), AUTHENTICATE_MS);
    let partial: NodeJS.Timeout | undefined;
    socket.on("error", () => undefined);
    socket.once("close", () => {
      this.#streams -= 1;
      clearTimeout(silent);
      clearTimeout(partial);
    });
    socket.on("data", (chunk: Buffer) => {
      const all = framer.push(chunk);
      for (const framed of all) {
        this.#framed(framed, flow, session);
        if (framed.kind === "refused" && framed.fatal) socket.end();
      }
      if (all.length > 0) partial = void clearTimeout(partial);
      partial = messageTimer(framer, partial, () => socket.destroy());
    });
  }

  acceptDatagram(udp: LocalUdp, bytes: Buffer, from: { host: string; port: number }): void {
    const key = hostPort(from);
    const flow = this.#udp.get(key) ?? udpFlow(udp, from);
    this.#udp.delete(key);
    this.#udp.set(key, flow);
    const oldest = this.#udp.keys().next();
    if (this.#udp.size > 1_000 && !oldest.done) this.#udp.delete(oldest.value);
    this.#framed(parseDatagram(bytes), flow, { app: undefined });
  }

  /**
   * Shows a text to one registered program.
   * @returns whether the program took it
   */
  async show(binding: Binding, from: Identity, text: string, signal: AbortSignal): Promise<boolean> {
    const { flow } = binding;
    const token = () => this.#o.random(12).toString("hex");
    const request: SipRequest = {
      kind: "request",
      method: "MESSAGE",
      uri: binding.contact,
      headers: [
        { name: "via", value: `SIP/2.0/${flow.transport} ${hostPort(flow.local)};branch=z9hG4bK${token()};rport` },
        { name: "max-forwards", value: "70" },
        { name: "from", value: `<${sipUriOf(from)}>;tag=${token()}` },
        { name: "to", value: `<${sipUriOf(this.#o.access.owner)}>` },
        { name: "call-id", value: token() },
        { name: "cseq", value: "1 MESSAGE" },
        { name: "content-type", value: "text/plain;charset=utf-8" },
      ],
      body: Buffer.from(text, "utf8"),
    };
    const key = transactionKey(request, "MESSAGE");
    const response = await this.#client.send(
      key,
      serialise(request),
      (bytes) => flow.send(bytes),
      flow.transport === "UDP",
      signal,
    );
    return response !== undefined && response.status >= 200 && response.status < 300;
  }

  stop(): void {
    this.#server.stop();
    this.#client.stop();
  }

  #framed(framed: Framed, flow: LocalFlow, session: { app: string | undefined }): void {
    if (framed.kind === "ping") return flow.transport === "UDP" ? undefined : flow.send(Buffer.from("\r\n"));
    if (framed.kind === "refused") {
      this.#o.log.debug(
        { flow: flow.id, status: framed.status, reason: framed.reason },
        "malformed message of a local program",
      );
      if (value(framed.headers, "via") !== undefined)
        flow.send(serialise(responseTo(framed, framed.status, framed.reason, this.#tag())));
      return;
    }
    if (framed.message.kind === "response") return this.#response(framed.message);
    const request = withReceived(framed.message, flow.remote);
    if (request.method === "ACK") return;
    let key: string;
    try {
      key = transactionKey(request, request.method);
    } catch {
      return flow.send(serialise(responseTo(request, 400, "Bad Via", this.#tag())));
    }
    const known = this.#server.begin(key);
    if (known === "pending") return;
    if (known === "full") return flow.send(serialise(responseTo(request, 503, "Service Unavailable", this.#tag())));
    if (known !== "new") return flow.send(known);
    this.#handle(request, flow, session).then(
      (answer) => {
        const bytes = serialise(answer);
        this.#server.end(key, bytes, flow.transport === "UDP");
        flow.send(bytes);
      },
      (error: unknown) => this.#o.log.error({ flow: flow.id, error: asSuiteError(error) }, "a local request failed"),
    );
  }

  #response(response: SipResponse): void {
    if (!this.#client.receive(responseKey(response), response))
      this.#o.log.debug({ status: response.status }, "stray response of a local program dropped");
  }

  async #handle(request: SipRequest, flow: LocalFlow, session: { app: string | undefined }): Promise<SipResponse> {
    const answer = (status: number, reason: string, extra: readonly SipHeader[] = []) =>
      responseTo(request, status, reason, this.#tag(), extra);
    try {
      if (request.method !== "REGISTER" && request.method !== "MESSAGE" && request.method !== "OPTIONS") {
        const known = KNOWN.has(request.method);
        return answer(known ? 405 : 501, known ? "Method Not Allowed" : "Not Implemented", [ALLOW]);
      }
      const unmet = precondition(request);
      if (unmet !== undefined) return answer(unmet.status, unmet.reason, unmet.extra);
      if (request.method === "OPTIONS")
        return answer(200, "OK", [ALLOW, { name: "accept", value: "text/plain, message/cpim" }]);
      const { to } =
        request.method === "REGISTER"
          ? registeredParties(request, this.#o.access.owner)
          : localParties(request, this.#o.access.owner);
      // A stream stays authenticated until it is closed; every datagram has to prove itself.
      const proven: { ok: true; app: string } | { ok: false; stale: boolean } =
        session.app === undefined || request.method === "REGISTER" || !this.#holds(session.app)
          ? this.#digest.check(request, flow.id)
          : { ok: true, app: session.app };
      if (!proven.ok)
        return answer(
          401,
          "Unauthorized",
          this.#digest.challenge(flow.id, proven.stale, value(request.headers, "user-agent")),
        );
      session.app = proven.app;
      if (request.method === "REGISTER") return this.#register(request, flow, proven.app, answer);
      const outcome = await this.#o.submit(to, textOf(request));
      return outcome === "delivered" ? answer(200, "OK") : answer(202, "Accepted");
    } catch (error) {
      const { status, reason } = statusOfThrown(error);
      this.#o.log.info(
        { flow: flow.id, method: request.method, status, error: asSuiteError(error).code },
        "a local request was refused",
      );
      return answer(status, reason);
    }
  }

  #register(
    request: SipRequest,
    flow: LocalFlow,
    app: string,
    answer: (status: number, reason: string, extra?: readonly SipHeader[]) => SipResponse,
  ): SipResponse {
    try {
      const contacts = this.#registrar.register(request, flow, app);
      const headers = contacts.map((contact) => ({ name: "contact", value: contact }));
      this.#o.log.info({ flow: flow.id, app, bindings: contacts.length }, "local program registered");
      setImmediate(() => this.#o.onRegistered(app));
      return answer(200, "OK", headers);
    } catch (error) {
      if (!(error instanceof SuiteError)) throw error;
      if (error.code === "limit-exceeded")
        return answer(423, "Interval Too Brief", [{ name: "min-expires", value: String(error.details["minExpires"]) }]);
      if (error.code === "conflict") return answer(500, "Out of order");
      throw error;
    }
  }

  /** Whether an app password is still good: it may have been revoked while its stream stayed open. */
  #holds(app: string): boolean {
    return this.#o.access.ha1s("SHA-256").some(({ id }) => id === app);
  }

  #tag(): string {
    return this.#o.random(8).toString("hex");
  }
}
