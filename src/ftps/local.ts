import type { OwnerAccess } from "../delivery/owner-access.ts";
import { type LocalSocket, type LocalTls, upgradeLocal } from "../peertls-core/loopback.ts";
import type { Log } from "../pki/log.ts";
import { localChannel } from "./data-channel.ts";
import { REPLIES, reply } from "./reply.ts";
import { type Door, Session, type SessionLimits } from "./session.ts";
import type { Tree } from "./tree.ts";

export interface LocalServerOptions {
  access: OwnerAccess;
  tls: LocalTls;
  guard: LoginGuard;
  /** A fresh view of the owner's files. */
  tree(): Tree;
  clock: () => Date;
  log: Log;
  maxFileBytes: number;
  limits?: Partial<SessionLimits>;
}

/** What the owner's own program meets: AUTH TLS first, then an app password, then the owner's files. */
export function serveLocal(socket: LocalSocket, o: LocalServerOptions): Session {
  const address = socket.remoteAddress ?? "";
  const door: Door = {
    kind: "local",
    greeting: "SixTalk ready; AUTH TLS first.",
    features: ["AUTH TLS;TLS-C"],
    maxFileBytes: o.maxFileBytes,
    localAddress: socket.localAddress ?? "",
    user(session, name) {
      if (!session.state.secured) return REPLIES.authFirst;
      session.state.named = name;
      return reply(331, "Username ok, send password.");
    },
    pass(session, password) {
      const { named } = session.state;
      if (!session.state.secured) return REPLIES.authFirst;
      if (o.guard.isShut(address)) return session.refuseLogin();
      if (named === undefined || o.access.verify(named, password) === undefined) {
        o.guard.failed(address);
        return session.refuseLogin();
      }
      session.loggedIn(o.tree());
      return reply(230, "Login successful.");
    },
    async secure(session) {
      // Said in clear, by whoever sits in between: none of it may look as if it had come inside TLS.
      if (session.pipelined) {
        session.control.destroy();
        return undefined;
      }
      session.reply(reply(234, "AUTH TLS successful."));
      session.detach();
      try {
        session.secured(await upgradeLocal(socket, o.tls));
      } catch {
        socket.destroy();
      }
      return undefined;
    },
    announce: (kind, session) => {
      const isProtected = () => session.state.protection === "P";
      return localChannel(kind, { control: socket, tls: o.tls, isProtected });
    },
  };
  const log = o.log.child({ protocol: "ftps", address });
  const { clock, limits } = o;
  return new Session(socket, { door, secured: false, log, clock, ...(limits === undefined ? {} : { limits }) });
}

const MINUTE_MS = 60_000;
const FAILURES_A_MINUTE = 10;
const SHUT_MS = 900_000;
const MOST_ADDRESSES = 1_000;

/** Who guesses passwords is not listened to for a quarter of an hour: ten wrong ones a minute and address (ftps.md §2.8). */
export class LoginGuard {
  readonly #failures = new Map<string, { count: number; since: number; shutUntil: number }>();
  readonly #now: () => number;

  /** @param now monotonic milliseconds */
  constructor(now: () => number) {
    this.#now = now;
  }

  isShut(address: string): boolean {
    return (this.#failures.get(address)?.shutUntil ?? 0) > this.#now();
  }

  failed(address: string): void {
    const now = this.#now();
    if (this.#failures.size > MOST_ADDRESSES) this.#failures.clear();
    const known = this.#failures.get(address);
    const fresh = known === undefined || now - known.since > MINUTE_MS;
    const entry = fresh ? { count: 0, since: now, shutUntil: 0 } : known;
    entry.count += 1;
    if (entry.count >= FAILURES_A_MINUTE) entry.shutUntil = now + SHUT_MS;
    this.#failures.set(address, entry);
  }
}
