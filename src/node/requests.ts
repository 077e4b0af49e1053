import type { StoredEvent } from "../delivery/events.ts";
import type { RequestSink, Stranger } from "../peertls-core/request-intake.ts";
import { type Identity, identityDomain, parseIdentity } from "../pki/identity.ts";
import type { Log } from "../pki/log.ts";
import { asSuiteError, SuiteError } from "../pki/suite-error.ts";
import { makeRequest } from "../sixid/request.ts";
import { verifyRequest } from "../sixid/verify.ts";
import type { PeerNode } from "./node.ts";
import type { PeerRequest } from "./state.ts";

export type Decision = "accept" | "accept-organisation" | "reject" | "block";

const MAX_PENDING = 100;
const AGAIN_MS = 86_400_000;

/** Requests to be admitted: of strangers to the owner, and of the owner to those who refused him. */
export class Requests {
  readonly #node: PeerNode;
  readonly #log: Log;
  readonly #clock: () => Date;

  constructor(o: { node: PeerNode; log: Log; clock: () => Date }) {
    this.#node = o.node;
    this.#log = o.log;
    this.#clock = o.clock;
  }

  /** Keeps a stranger's request. Its signer has to be whoever is at the other end of the connection. */
  readonly take: RequestSink = async (request: string, from: Stranger) => {
    const { state, trust, identity } = this.#node;
    const domain = identityDomain(from.identity);
    const anchors = trust.policy.anchors.filter((anchor) =>
      anchor.domains.some((one) => one === "any" || one === domain),
    );
    const verified = await verifyRequest(request, identity, { anchors, now: this.#clock() });
    if (verified.certificate.fingerprint !== from.certificate.fingerprint) {
      throw new SuiteError("record-rejected", "the request was signed by somebody else", {
        fault: "peer",
        details: { step: "signer" },
      });
    }
    const known = state.requests();
    const mine = known.find((one) => one.from === verified.from);
    if (mine !== undefined && mine.state !== "pending") return "kept"; // a decision is not told to the asker
    if (mine === undefined && known.filter((one) => one.state === "pending").length >= MAX_PENDING) return "later";
    const { organisation } = from.certificate;
    const kept: PeerRequest = {
      from: verified.from,
      name: verified.body.name,
      text: verified.body.text,
      receivedAt: this.#clock(),
      state: "pending",
      fingerprint: from.certificate.fingerprint,
      issuer: anchors[0]?.name ?? "",
      ...(organisation === undefined ? {} : { organisation }),
    };
    if (state.addRequest(kept)) {
      await this.#node.store.appendEvent({
        type: "request.received",
        from: kept.from,
        name: kept.name,
        text: kept.text,
      });
      this.#log.info({ from: kept.from }, "a stranger asks to be admitted");
    }
    return "kept";
  };

  /** The owner's word. Accepting also knocks at the asker's node, so that what waits there comes at once. @throws SuiteError not-found */
  async decide(from: Identity, decision: Decision): Promise<void> {
    const { state } = this.#node;
    const request = state.requests().find((one) => one.from === from);
    if (request === undefined)
      throw new SuiteError("not-found", "nobody of that name has asked", { fault: "local", details: { from } });
    const now = this.#clock();
    if (decision === "accept-organisation") {
      if (request.organisation === undefined)
        throw new SuiteError("not-found", "the certificate names no organisation", {
          fault: "local",
          details: { from },
        });
      state.addTrustEntry("rules", { issuer: request.issuer }, now);
    }
    if (decision === "block") state.addTrustEntry("block", { identity: from }, now);
    state.decideRequest(from, decision === "reject" ? "rejected" : decision === "block" ? "blocked" : "accepted");
    if (decision === "accept" || decision === "accept-organisation") await this.#node.addContact(from, request.name);
    this.#node.applyTrust();
    await this.#node.store.appendEvent({ type: "request.decided", from, decision });
    if (decision === "accept" || decision === "accept-organisation") {
      this.#knock(from).catch((error: unknown) =>
        this.#log.info({ from, error: asSuiteError(error) }, "the asker could not be told"),
      );
    }
  }

  /** Whoever refuses us is asked once a day to admit us; what is for him is held until he does. */
  noticed(event: StoredEvent): void {
    if (event.body.type !== "receipt.changed" || event.body.state !== "held" || event.body.reason !== "not-admitted")
      return;
    const to = parseIdentity(event.body.to);
    const { state } = this.#node;
    const last = state.requestSentAt(to);
    const now = this.#clock();
    if (last !== undefined && now.getTime() - last.getTime() < AGAIN_MS) return;
    state.noteRequestSent(to, now);
    this.#ask(to).catch((error: unknown) =>
      this.#log.warn({ to, error: asSuiteError(error) }, "the request to be admitted could not be handed in"),
    );
  }

  async #ask(to: Identity): Promise<void> {
    const { directory, peerTls, keys, config, identity, store } = this.#node;
    const signal = AbortSignal.timeout(30_000);
    const record = await directory.lookup(to, {}, signal);
    const request = await makeRequest({
      from: identity,
      name: config.name,
      to,
      text: "",
      signer: keys.auth,
      now: this.#clock(),
    });
    for (const device of record.devices) {
      const routes = device.addresses.map(({ host, port }) => ({ kind: "direct" as const, address: { host, port } }));
      const expected = { identity: to, fingerprints: [device.fingerprint], intermediates: record.chain };
      const answer = await peerTls.sendRequest(expected, routes, request, signal);
      this.#log.info({ to, answer }, "asked to be admitted");
      await store.appendEvent({ type: "request.sent", to, answer });
      if (answer === "kept") return;
    }
  }

  /** A connection to the asker's node wakes what waits for us there. */
  async #knock(to: Identity): Promise<void> {
    const { directory, peerTls } = this.#node;
    const until = AbortSignal.timeout(30_000); // whoever decided may be gone by then
    const record = await directory.lookup(to, {}, until);
    for (const device of record.devices) {
      const routes = device.addresses.map(({ host, port }) => ({ kind: "direct" as const, address: { host, port } }));
      const expected = { identity: to, fingerprints: [device.fingerprint], intermediates: record.chain };
      const connection = await peerTls.dial(expected, "sip", routes, until);
      await connection.confirmed.catch(() => undefined);
      connection.stream.end();
    }
  }
}
