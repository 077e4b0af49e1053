import { wayTo } from "../delivery/devices.ts";
import type { StoredEvent } from "../delivery/events.ts";
import type { TrustEntry } from "../peertls-core/policy-schema.ts";
import type { RequestSink, Stranger } from "../peertls-core/request-intake.ts";
import type { Verdict } from "../peertls-core/verdict.ts";
import { type Identity, identityDomain, parseIdentity } from "../pki/identity.ts";
import type { Log } from "../pki/log.ts";
import type { PathResult } from "../pki/path.ts";
import { asSuiteError, SuiteError } from "../pki/suite-error.ts";
import { makeRequest } from "../sixid/request.ts";
import { type VerifiedRequest, verifyRequest } from "../sixid/verify.ts";
import type { PeerNode } from "./node.ts";
import type { PeerRequest } from "./state.ts";

export type Decision = "accept" | "accept-organisation" | "reject" | "block";

const MAX_PENDING = 100;
const DAY_MS = 86_400_000;
const AGAIN_MS = DAY_MS;
const REJECTED_MS = 90 * DAY_MS;

/** Requests to be admitted: of strangers to the owner, and of the owner to those who refused him. */
export class Requests {
  readonly #node: PeerNode;
  readonly #log: Log;
  readonly #clock: () => Date;
  readonly #asking = new Set<Identity>();

  constructor(o: { node: PeerNode; log: Log; clock: () => Date }) {
    this.#node = o.node;
    this.#log = o.log;
    this.#clock = o.clock;
  }

  /** Keeps a stranger's request. Its signer has to be whoever is at the other end of the connection. */
  readonly take: RequestSink = async (request: string, from: Stranger) => {
    const { identity } = this.#node;
    const anchors = this.#node.anchorsFor(identityDomain(from.identity));
    const verified = await verifyRequest(request, identity, { anchors, now: this.#clock() });
    if (verified.certificate.fingerprint !== from.certificate.fingerprint) {
      throw new SuiteError("record-rejected", "the request was signed by somebody else", {
        fault: "peer",
        details: { step: "signer" },
      });
    }
    return this.#keep(verified);
  };

  /** Keeps a request that lay in the box. Whom the gate would refuse for another reason than being a stranger is not heard. */
  async takeBoxed(request: VerifiedRequest): Promise<"kept" | "later" | "refused"> {
    const verdict = this.#judge(request);
    const { from } = request;
    if (isPeer(verdict)) {
      this.#knockSoon(from); // admitted since: what waits there may come
      return "kept";
    }
    if (!verdict.admit && verdict.reason !== "not-admitted" && verdict.reason !== "revocation-unknown") {
      this.#log.info({ from, reason: verdict.reason }, "a request in the box is not heard");
      return "refused";
    }
    return this.#keep(request);
  }

  async #keep(request: VerifiedRequest): Promise<"kept" | "later"> {
    const { state } = this.#node;
    const { from, certificate } = request;
    const now = this.#clock();
    const known = state.requests();
    const mine = known.find((one) => one.from === from);
    // A decision is not told to the asker. Whoever was accepted and is no contact any more asks anew.
    const undone = mine?.state === "accepted" && !isPeer(this.#judge(request));
    if (mine !== undefined && !undone && isDecided(mine, now)) return "kept";
    const waiting = known.filter((one) => one.state === "pending");
    if (!waiting.some((one) => one.from === from) && waiting.length >= MAX_PENDING) return "later";
    const { organisation } = certificate;
    const path = this.#pathOf(request);
    const kept: PeerRequest = {
      from,
      name: request.body.name,
      text: request.body.text,
      receivedAt: now,
      state: "pending",
      fingerprint: certificate.fingerprint,
      issuer: path.ok ? path.anchor.name : "",
      ...(organisation === undefined ? {} : { organisation }),
    };
    if (state.addRequest(kept)) {
      await this.#node.store.appendEvent({ type: "request.received", from, name: kept.name, text: kept.text });
      this.#log.info({ from }, "a stranger asks to be admitted");
    }
    return "kept";
  }

  /** The owner's word. Accepting also knocks at the asker's node, so that what waits there comes at once. @throws SuiteError not-found */
  async decide(from: Identity, decision: Decision): Promise<void> {
    const { state } = this.#node;
    const request = state.requests().find((one) => one.from === from);
    if (request === undefined)
      throw new SuiteError("not-found", "nobody of that name has asked", { fault: "local", details: { from } });
    const now = this.#clock();
    const accepted = decision === "accept" || decision === "accept-organisation";
    const rule = decision === "accept-organisation" ? this.#organisationOf(request) : undefined;
    if (rule !== undefined) state.addTrustEntry("rules", rule, now);
    // The last word counts: whoever is accepted is blocked no more, whoever is not is no contact any more.
    if (decision === "block") state.addTrustEntry("block", { identity: from }, now);
    else if (accepted) state.removeTrustEntry("block", { identity: from });
    if (!accepted) await this.#node.removeContact(from);
    state.decideRequest(from, decision === "reject" ? "rejected" : decision === "block" ? "blocked" : "accepted", now);
    if (accepted) await this.#node.addContact(from, request.name);
    this.#node.applyTrust();
    await this.#node.store.appendEvent({ type: "request.decided", from, decision });
    if (accepted) this.#knockSoon(from);
    if (rule !== undefined) await this.#admitted(rule, now);
  }

  /** The rule that lets a whole organisation in: as the certificate names it if its anchor may vouch for that, else all whom the domain's own CA certifies. */
  #organisationOf({ from, issuer, organisation }: PeerRequest): TrustEntry {
    const anchor = this.#node.trust.policy.anchors.find(({ name }) => name === issuer);
    if (organisation !== undefined && anchor?.organisations.includes(organisation)) return { organisation };
    if (anchor?.domains.length === 1 && anchor.domains[0] === identityDomain(from)) return { issuer };
    throw new SuiteError("not-found", "the issuer of the certificate vouches for no organisation", {
      fault: "local",
      details: { from },
    });
  }

  /** Others of the organisation who have asked need no answer of their own any more. */
  async #admitted(rule: TrustEntry, at: Date): Promise<void> {
    const { state, store } = this.#node;
    for (const { from, issuer, organisation, state: now } of state.requests()) {
      const covered = rule.issuer === undefined ? rule.organisation === organisation : rule.issuer === issuer;
      if (now !== "pending" || !covered) continue;
      state.decideRequest(from, "accepted", at);
      await store.appendEvent({ type: "request.decided", from, decision: "accept-organisation" });
      this.#knockSoon(from);
    }
  }

  /** Whoever refuses us is asked once a day to admit us; what is for him is held until he does. */
  noticed(event: StoredEvent): void {
    if (event.body.type !== "receipt.changed" || event.body.state !== "held" || event.body.reason !== "not-admitted")
      return;
    const to = parseIdentity(event.body.to);
    const { state } = this.#node;
    const last = state.requestSentAt(to);
    if (last !== undefined && this.#clock().getTime() - last.getTime() < AGAIN_MS) return;
    if (this.#asking.has(to)) return;
    this.#asking.add(to);
    this.#ask(to)
      .catch((error: unknown) =>
        this.#log.warn({ to, error: asSuiteError(error) }, "the request to be admitted could not be handed in"),
      )
      .finally(() => this.#asking.delete(to));
  }

  /**
   * Tries again what is held for people who did not admit us: they may have done so, and knocked, while this node was
   * down. Whoever still refuses is asked again if that was not today.
   */
  async tryHeld(): Promise<void> {
    const { outbox } = this.#node;
    const open = await outbox.receipts({ open: true });
    const refused = open.filter(({ status }) => status.state === "held" && status.reason === "not-admitted");
    for (const to of new Set(refused.map((receipt) => receipt.to))) outbox.wake(to);
  }

  /**
   * Both ways: the port tells his node at once if it takes requests, the box serves when it does not. What the box
   * answers says nothing about him, so it cannot tell whether the port is needed.
   */
  async #ask(to: Identity): Promise<void> {
    const { keys, config, identity, state, store, box } = this.#node;
    const signal = AbortSignal.timeout(30_000);
    const now = this.#clock();
    const request = await makeRequest({ from: identity, name: config.name, to, text: "", signer: keys.auth, now });
    const [boxed, told] = await Promise.allSettled([
      box.handIn(to, request, signal),
      this.#askAtPort(to, request, signal),
    ]);
    for (const [way, done] of [["box", boxed] as const, ["port", told] as const])
      if (done.status === "rejected") this.#log.info({ to, way, error: asSuiteError(done.reason) }, "not asked there");
    if (boxed.status === "rejected" && told.status === "rejected") throw told.reason;
    const port = told.status === "fulfilled" ? told.value : "later";
    const answer = port === "later" && boxed.status === "fulfilled" ? "pending" : port;
    state.noteRequestSent(to, now);
    this.#log.info({ to, answer }, "asked to be admitted");
    await store.appendEvent({ type: "request.sent", to, answer });
  }

  async #askAtPort(to: Identity, request: string, signal: AbortSignal): Promise<"kept" | "later"> {
    const { directory, peerTls } = this.#node;
    const record = await directory.lookup(to, {}, signal);
    let full = false;
    let failure: unknown = new SuiteError("unreachable", "no device of the peer is known", { fault: "peer" });
    for (const device of record.devices) {
      const { expected, routes } = wayTo(device, record);
      try {
        if ((await peerTls.sendRequest(expected, routes, request, signal)) === "kept") return "kept";
        full = true;
      } catch (error) {
        failure = error;
      }
    }
    if (full) return "later";
    throw failure;
  }

  /** What the gate would say of the asker. */
  #judge(request: VerifiedRequest): Verdict {
    const { trust, revocations } = this.#node;
    const path = this.#pathOf(request);
    const time = this.#clock();
    return trust.policy.judge({
      ...{ direction: "in", protocol: "request", certificate: request.certificate, path, time, resumed: false },
      revocation: path.ok ? revocations.stateOf(path.path, path.anchor, time) : { status: "unchecked" },
      address: { host: "::", port: 0 },
    });
  }

  #pathOf({ certificate, chain }: VerifiedRequest): PathResult {
    return this.#node.trust.paths.find(certificate.certificate, chain, this.#clock());
  }

  #knockSoon(from: Identity): void {
    this.#knock(from).catch((error: unknown) =>
      this.#log.info({ from, error: asSuiteError(error) }, "the asker could not be told"),
    );
  }

  /** A connection to a node of the asker's wakes what waits for us there: at all of them, since any may have it. */
  async #knock(to: Identity): Promise<void> {
    const { directory, peerTls } = this.#node;
    const until = AbortSignal.timeout(30_000); // whoever decided may be gone by then
    const record = await directory.lookup(to, {}, until);
    const knocks = record.devices.map(async (device) => {
      const { expected, routes } = wayTo(device, record);
      const connection = await peerTls.dial(expected, "sip", routes, until);
      await connection.confirmed.finally(() => connection.stream.end());
    });
    const done = await Promise.allSettled(knocks);
    const failed = done.find((one) => one.status === "rejected");
    if (failed !== undefined && !done.some((one) => one.status === "fulfilled")) throw failed.reason;
  }
}

/** Whether he would be let in for more than to ask. */
function isPeer(verdict: Verdict): boolean {
  return verdict.admit && verdict.by.rule !== "request";
}

/** Whether the owner's word on it holds: a rejection does for a while, so that whoever is another by then may ask again. */
function isDecided({ state, decidedAt }: PeerRequest, now: Date): boolean {
  if (state === "pending") return false;
  return state !== "rejected" || decidedAt === undefined || now.getTime() - decidedAt.getTime() <= REJECTED_MS;
}
