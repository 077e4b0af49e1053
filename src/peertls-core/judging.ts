import type { Certificate, Fingerprint } from "../pki/certificate.ts";
import type { Log } from "../pki/log.ts";
import type { TrustAnchor } from "../pki/path.ts";
import type { PeerAddress, PeerConnection } from "./connection.ts";
import { type Expected, type Purpose, protocolOf } from "./door.ts";
import type { Facts } from "./handshake.ts";
import type { LimitOptions } from "./limits.ts";
import type { Trust } from "./trust.ts";
import type { Approach, RevocationState, Verdict } from "./verdict.ts";

/** What is known of revocation, from memory: the gate never waits. */
export interface RevocationSource {
  /** @param path leaf first, the anchor's certificate last */
  stateOf(path: readonly Certificate[], anchor: TrustAnchor, time: Date): RevocationState;
  /** Told when a list came or aged, so that open connections are judged again. */
  onChange(listener: () => void): void;
}

export interface JudgingOptions {
  trust: Trust;
  revocations?: RevocationSource;
  limits: LimitOptions;
  clock: () => Date;
  log: Log;
}

/** How somebody came. */
export interface How {
  direction: "in" | "out";
  purpose: Purpose | undefined;
  address: PeerAddress;
  resumed: boolean;
  expected?: Expected;
}

export type Judged = (Verdict & { admit: false }) | (Verdict & { admit: true } & { approach: Approach });

const REJUDGED_A_TICK = 500;
/** Certificates end, lists age and clocks are set, and nobody tells. */
const REJUDGED_EVERY_MS = 60_000;

type Found = Pick<Approach, "path" | "revocation">;

interface Open {
  /** What is kept for judging again holds no chain: the path cache has it. */
  approach: Approach;
  connection: PeerConnection;
  data: boolean;
}

/** One judge for everybody: at the handshake, and again whenever policy or revocation change. */
export class Judging {
  readonly #o: JudgingOptions;
  readonly #open = new Map<PeerConnection, Open>();
  readonly #perKey = new Map<string, number>();
  #waiting: Open[] = [];
  #again = false;
  #timer: NodeJS.Timeout | undefined;

  constructor(options: JudgingOptions) {
    this.#o = options;
    options.trust.onChange(() => this.judgeAgain());
    options.revocations?.onChange(() => this.judgeAgain());
  }

  get connections(): readonly PeerConnection[] {
    return [...this.#open.keys()];
  }

  /** As it was judged when it came. */
  approachOf(connection: PeerConnection): Approach | undefined {
    return this.#open.get(connection)?.approach;
  }

  /** Synchronous and total: an exception refuses. */
  judge(facts: Facts, how: How): Judged {
    try {
      if (facts.certificate === undefined) return { admit: false, reason: facts.failure ?? "no-certificate" };
      const { certificate } = facts;
      const { trust, clock } = this.#o;
      const time = clock();
      const { path, revocation } = this.#pathOf(certificate.certificate, facts.sent ?? [], time, true);
      const approach: Approach = {
        direction: how.direction,
        protocol: protocolOf(how.purpose) ?? "request",
        certificate,
        path,
        revocation,
        address: how.address,
        time,
        resumed: how.resumed,
        ...(how.expected === undefined ? {} : { expected: how.expected }),
      };
      const verdict = trust.policy.judge(approach);
      if (!verdict.admit) return verdict;
      // A data channel belongs to one control connection: the same key, or it is not let in.
      if (how.purpose?.kind === "data" && how.purpose.control.fingerprint !== certificate.fingerprint) {
        return { admit: false, reason: "not-admitted" };
      }
      if (how.purpose === undefined) return { admit: false, reason: "protocol-unknown" };
      if (how.direction === "in" && this.#tooMany(certificate.fingerprint, how.purpose.kind === "data"))
        return { admit: false, reason: "busy" };
      return { ...verdict, approach };
    } catch (error) {
      this.#o.log.error({ error, address: how.address }, "the gate failed; the peer is refused");
      return { admit: false, reason: "gate-failure" };
    }
  }

  /** The connection is open from now on, and judged again when something changes. */
  opened(connection: PeerConnection, approach: Approach, data: boolean): void {
    this.#open.set(connection, { approach, connection, data });
    this.#timer ??= setInterval(() => this.judgeAgain(), REJUDGED_EVERY_MS).unref();
    if (connection.direction === "in") this.#count(connection.fingerprint, data, 1);
    connection.stream.once("close", () => {
      if (this.#open.delete(connection) && connection.direction === "in") this.#count(connection.fingerprint, data, -1);
      if (this.#open.size > 0) return;
      clearInterval(this.#timer);
      this.#timer = undefined;
    });
  }

  /** Whoever would not be let in now goes, some hundred a tick. What changes meanwhile has all judged once more, and once only. */
  judgeAgain(): void {
    if (this.#waiting.length > 0) {
      this.#again = true;
      return;
    }
    this.#again = false;
    this.#waiting = [...this.#open.values()];
    this.#judgeSome();
  }

  #judgeSome(): void {
    for (const open of this.#waiting.slice(0, REJUDGED_A_TICK)) this.#judgeOpen(open);
    this.#waiting = this.#waiting.slice(REJUDGED_A_TICK);
    if (this.#waiting.length > 0) setImmediate(() => this.#judgeSome());
    else if (this.#again) setImmediate(() => this.judgeAgain());
  }

  /** Total, as `judge`. */
  #judgeOpen({ approach, connection }: Open): void {
    const { trust, clock, log } = this.#o;
    const about = { conn: connection.id, peer: connection.identity };
    try {
      const time = clock();
      const verdict = trust.policy.judge({
        ...approach,
        ...this.#pathOf(approach.certificate.certificate, [], time, false),
        time,
      });
      if (verdict.admit) return;
      log.warn({ ...about, reason: verdict.reason }, "connection closed: the peer is not admitted any more");
    } catch (error) {
      log.error({ ...about, error }, "the gate failed; the connection is closed");
    }
    connection.destroy();
  }

  /** A CA may have a new certificate in the place of one that was revoked: whom it certified has a path still. */
  #pathOf(leaf: Certificate, sent: readonly Certificate[], time: Date, keyProven: boolean): Found {
    const { trust, revocations } = this.#o;
    const path = trust.paths.find(leaf, sent, time, keyProven);
    const revocation = this.#revocationOf(path, time);
    if (revocation.status !== "revoked" || revocation.at === 0) return { path, revocation };
    const other = trust.paths.find(leaf, sent, time, keyProven, (certificate, issuer, anchor) =>
      revocations?.stateOf([certificate, issuer], anchor, time).status === "revoked" ? "revoked" : undefined,
    );
    return other.ok ? { path: other, revocation: this.#revocationOf(other, time) } : { path, revocation };
  }

  #revocationOf(path: Approach["path"], time: Date): RevocationState {
    const { revocations } = this.#o;
    if (!path.ok || revocations === undefined) return { status: "unchecked" };
    return revocations.stateOf(path.path, path.anchor, time);
  }

  #tooMany(key: Fingerprint, data: boolean): boolean {
    const { connectionsPerKey, dataChannelsPerKey } = this.#o.limits;
    return (this.#perKey.get(nameOf(key, data)) ?? 0) >= (data ? dataChannelsPerKey : connectionsPerKey);
  }

  #count(key: Fingerprint, data: boolean, by: 1 | -1): void {
    const name = nameOf(key, data);
    const now = (this.#perKey.get(name) ?? 0) + by;
    if (now === 0) this.#perKey.delete(name);
    else this.#perKey.set(name, now);
  }
}

function nameOf(key: Fingerprint, data: boolean): string {
  return `${key}${data ? "+data" : ""}`;
}
