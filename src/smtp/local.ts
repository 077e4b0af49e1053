import type { ItemId } from "../delivery/envelope.ts";
import type { Draft } from "../delivery/outbox.ts";
import type { OwnerAccess } from "../delivery/owner-access.ts";
import type { PeerAddress } from "../peertls-core/connection.ts";
import { type LocalListener, type LocalSocket, type LocalTls, listenLocal } from "../peertls-core/loopback.ts";
import { type Identity, identityDomain } from "../pki/identity.ts";
import type { Log } from "../pki/log.ts";
import { asSuiteError } from "../pki/suite-error.ts";
import type { Directory } from "../sixid/directory.ts";
import { canonicalLines } from "../smime/entity.ts";
import { composeMail } from "./compose.ts";
import { splitMail, withoutNul } from "./grammar.ts";
import { Refusal } from "./reply.ts";
import { refuse, SESSION_LIMITS, type SessionLimits, type SmtpHandlers, SmtpService } from "./session.ts";

export interface LocalMailOptions {
  owner: Identity;
  access: OwnerAccess;
  directory: Pick<Directory, "lookup">;
  local: { host: string; smtpsPort: number; submissionPort: number; tls: LocalTls };
  random: (length: number) => Buffer;
  clock: () => Date;
  log: Log;
  /** Makes it durable. */
  accept: (draft: Draft) => Promise<ItemId>;
  limits?: Partial<SessionLimits>;
}

const MAX_BYTES = 52_428_800;
const COMMAND_BYTES = 12_288;
const CONNECTIONS = 20;
/** A directory that is slower counts as away: the mail is queued, and the outbox finds out. */
const LOOKUP_MS = 10_000;

/** The outgoing server of the owner's own mail programs (RFC 6409): TLS on one port, STARTTLS on the other. */
export class LocalMail {
  readonly #o: LocalMailOptions;
  readonly #secured: SmtpService;
  readonly #plain: SmtpService;
  readonly #stopping = new AbortController();
  #listeners: { smtps: LocalListener; submission: LocalListener } | undefined;
  #connections = 0;

  constructor(o: LocalMailOptions) {
    this.#o = o;
    const options = {
      name: identityDomain(o.owner),
      auth: true,
      limits: { ...SESSION_LIMITS, maxBytes: MAX_BYTES, commandBytes: COMMAND_BYTES, ...o.limits },
      log: o.log,
    };
    this.#secured = new SmtpService({ ...options, security: { mode: "tls" } });
    this.#plain = new SmtpService({ ...options, security: { mode: "starttls", tls: o.local.tls } });
  }

  get addresses(): { smtps: PeerAddress; submission: PeerAddress } | undefined {
    if (this.#listeners === undefined) return undefined;
    const { smtps, submission } = this.#listeners;
    return { smtps: smtps.address, submission: submission.address };
  }

  /** @throws SuiteError config-invalid when a port is taken */
  async start(): Promise<void> {
    const { host, smtpsPort, submissionPort, tls } = this.#o.local;
    const smtps = await listenLocal({ host, port: smtpsPort, tls }, (socket) => this.#accept(socket, this.#secured));
    const submission = await listenLocal({ host, port: submissionPort }, (socket) =>
      this.#accept(socket, this.#plain),
    ).catch(async (error: unknown) => {
      await smtps.close();
      throw error;
    });
    this.#listeners = { smtps, submission };
  }

  async stop(): Promise<void> {
    this.#stopping.abort();
    await Promise.all([this.#secured.stop(), this.#plain.stop()]);
    await Promise.all([this.#listeners?.smtps.close(), this.#listeners?.submission.close()]);
  }

  #accept(socket: LocalSocket, service: SmtpService): void {
    if (this.#connections >= CONNECTIONS) return refuse(socket, "4.7.0 Too many connections");
    this.#connections += 1;
    socket.once("close", () => {
      this.#connections -= 1;
    });
    const id = this.#o.random(8).toString("hex");
    service.accept(socket, id, this.#handlers(id));
  }

  #handlers(conn: string): SmtpHandlers {
    const { owner, access, random, clock, accept, log } = this.#o;
    return {
      auth: (user, password) => {
        const app = access.verify(user, password);
        if (app === undefined) log.warn({ conn, protocol: "smtp" }, "a local program showed a wrong password");
        return app !== undefined;
      },
      mail: async ({ mailbox }) => {
        if (mailbox !== owner) throw new Refusal(550, "5.7.1", "The sender is not the owner of this node");
      },
      rcpt: (to) => this.#known(to),
      data: async (mail, bytes) => {
        const { head, body } = await splitMail(withoutNul(bytes));
        const composed = composeMail(head, { owner, to: mail.to, now: clock(), random });
        const { copies, messageId, title } = composed;
        const draft = { kind: "mail", from: owner, messageId, title, seal: "node" } as const;
        const [only, ...others] = copies;
        if (only === undefined) throw new Refusal(554, "5.5.1", "No valid recipients");
        const canonical = canonicalLines(body);
        // Each copy is signed on its own; only hidden recipients make more than one.
        const lines = others.length === 0 ? canonical : await collected(canonical);
        let first: ItemId | undefined;
        for (const { to, payloadHead, outerHeader } of copies) {
          const id = await accept({ ...draft, to, outerHeader, entity: preceded(payloadHead, lines) });
          first ??= id;
        }
        return `queued ${first}`;
      },
    };
  }

  /** @throws SuiteError unknown-recipient; everything else that the directory fails with is the outbox's to wait for */
  async #known(to: Identity): Promise<void> {
    try {
      const limit = AbortSignal.any([this.#stopping.signal, AbortSignal.timeout(LOOKUP_MS)]);
      await this.#o.directory.lookup(to, {}, limit);
    } catch (thrown) {
      const error = asSuiteError(thrown);
      if (error.code === "unknown-recipient" && !error.temporary) throw error;
      this.#o.log.info(
        { protocol: "smtp", to, error: error.code },
        "a recipient is queued without having been looked up",
      );
    }
  }
}

async function* preceded(head: Buffer, body: AsyncIterable<Uint8Array> | Uint8Array[]): AsyncGenerator<Uint8Array> {
  yield head;
  yield* body;
}

async function collected(source: AsyncIterable<Uint8Array>): Promise<Uint8Array[]> {
  const pieces: Uint8Array[] = [];
  for await (const piece of source) pieces.push(Buffer.from(piece));
  return pieces;
}
