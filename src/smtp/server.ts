import type { Inbox } from "../delivery/inbox.ts";
import type { PeerConnection } from "../peertls-core/connection.ts";
import type { Fingerprint } from "../pki/certificate.ts";
import { type Identity, identityDomain } from "../pki/identity.ts";
import type { Log } from "../pki/log.ts";
import { asSuiteError, SuiteError } from "../pki/suite-error.ts";
import { decodeBase64 } from "../smime/base64.ts";
import { contentTypeOf, type EntityHead, transferEncodingOf } from "../smime/entity.ts";
import { splitMail, strictLines } from "./grammar.ts";
import { presentMail, titleOf } from "./opened.ts";
import { Refusal } from "./reply.ts";
import { refuse, SESSION_LIMITS, type SessionLimits, type SmtpHandlers, SmtpService } from "./session.ts";

export interface PeerMailOptions {
  owner: Identity;
  inbox: Inbox;
  clock: () => Date;
  log: Log;
  limits?: Partial<SessionLimits>;
}

/** A sealed mail in base64 (smtp.md §2). */
const MAX_BYTES = 75_497_472;
const COMMAND_BYTES = 2_048;
const CONNECTIONS_OF_A_PEER = 4;
const CONNECTIONS = 64;
const MAX_RECEIVED = 30;

/** What a peer's node meets: sealed mail for the owner, answered 250 when it is durable, never before. */
export class PeerMail {
  readonly #o: PeerMailOptions;
  readonly #service: SmtpService;
  readonly #open = new Map<PeerConnection, Fingerprint>();

  constructor(o: PeerMailOptions) {
    this.#o = o;
    this.#service = new SmtpService({
      name: identityDomain(o.owner),
      security: { mode: "tls" },
      auth: false,
      limits: { ...SESSION_LIMITS, maxBytes: MAX_BYTES, commandBytes: COMMAND_BYTES, ...o.limits },
      log: o.log,
    });
  }

  accept(connection: PeerConnection): void {
    const { stream, fingerprint } = connection;
    const ofPeer = [...this.#open.values()].filter((one) => one === fingerprint).length;
    if (this.#open.size >= CONNECTIONS || ofPeer >= CONNECTIONS_OF_A_PEER)
      return refuse(stream, "4.7.0 Too many connections");
    this.#open.set(connection, fingerprint);
    stream.once("close", () => this.#open.delete(connection));
    this.#service.accept(stream, connection.id, this.#handlers(connection));
  }

  stop(): Promise<void> {
    return this.#service.stop();
  }

  #handlers(connection: PeerConnection): SmtpHandlers {
    const { owner, inbox, clock, log } = this.#o;
    const { certificate, fingerprint } = connection;
    // The gate vouches for the domain of the identity that it admitted, not for whatever else a certificate may name.
    const isPeer = (identity: Identity) =>
      identity === connection.identity ||
      (identityDomain(identity) === identityDomain(connection.identity) &&
        certificate.identities.some((one) => one.identity === identity));
    const noted = (thrown: unknown): never => {
      const error = thrown instanceof Refusal ? thrown.reply : asSuiteError(thrown).code;
      log.warn(
        { conn: connection.id, protocol: "smtp", peer: connection.identity, error },
        "a peer's mail was refused",
      );
      throw thrown;
    };
    return {
      async mail({ mailbox }) {
        if (mailbox !== undefined && !isPeer(mailbox)) {
          return noted(new Refusal(550, "5.7.1", "The sender is not in your certificate"));
        }
      },
      async rcpt(to) {
        if (to !== owner) return noted(new Refusal(550, "5.1.1", "No such person here"));
      },
      async data(mail, bytes, signal) {
        const peer = { identity: mail.from ?? connection.identity, fingerprint, certificate };
        const receive = async () => {
          const { head, headBytes, body } = await splitMail(strictLines(bytes));
          checkOuterHead(head);
          const reception = { owner, peer, returnPath: mail.from, passage: mail.passage, now: clock() };
          return inbox.receiveSealed(
            {
              kind: "mail",
              peer,
              to: [owner],
              source: decodeBase64(body),
              maxBytes: MAX_BYTES,
              original: { head: headBytes.toString("utf8"), encoding: "base64" },
              present: (facts) => presentMail(facts, reception),
              title: (facts) => titleOf(facts.head),
            },
            signal,
          );
        };
        const { id } = await receive().catch(noted);
        return `stored ${id}`;
      },
    };
  }
}

/** What everybody can see of a sealed mail. @throws Refusal, SuiteError not-sealed, seal-malformed */
function checkOuterHead(head: EntityHead): void {
  const received = head.fields.filter(({ name }) => name.toLowerCase() === "received").length;
  if (received > MAX_RECEIVED) throw new Refusal(554, "5.4.6", "Too many hops");
  if (!/^application\/(?:x-)?pkcs7-mime$/.test(contentTypeOf(head).value)) {
    throw new SuiteError("not-sealed", "the mail is not sealed", { fault: "peer" });
  }
  if (transferEncodingOf(head) !== "base64") {
    throw new SuiteError("seal-malformed", "the seal is not in base64", { fault: "peer" });
  }
}
