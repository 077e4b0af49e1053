import type { Inbox } from "../delivery/inbox.ts";
import type { Identity } from "../pki/identity.ts";
import { asSuiteError } from "../pki/suite-error.ts";
import type { SipRequest } from "./grammar.ts";
import { peerParties } from "./identity.ts";
import { arrivedMessage } from "./instant.ts";
import type { PeerFlow } from "./peer-flow.ts";
import { precondition } from "./precondition.ts";
import { statusOfThrown } from "./reply.ts";

const ALLOW = { name: "allow", value: "MESSAGE, OPTIONS" };
/** Methods that exist but that a peer cannot use here (405); all others are unknown (501). */
const KNOWN = new Set([
  "INVITE",
  "ACK",
  "BYE",
  "CANCEL",
  "REGISTER",
  "SUBSCRIBE",
  "NOTIFY",
  "PUBLISH",
  "INFO",
  "REFER",
  "UPDATE",
  "PRACK",
]);

export interface PeerServerOptions {
  owner: Identity;
  inbox: Inbox;
  tag: () => string;
  signal: AbortSignal;
}

/** What a peer's node meets: MESSAGE and OPTIONS. A MESSAGE is answered 200 when it is durable, never before. */
export async function servePeer(request: SipRequest, flow: PeerFlow, o: PeerServerOptions): Promise<void> {
  if (request.method === "ACK") return; // answers nothing
  try {
    if (request.method !== "MESSAGE" && request.method !== "OPTIONS") {
      const known = KNOWN.has(request.method);
      return flow.respond(request, known ? 405 : 501, known ? "Method Not Allowed" : "Not Implemented", o.tag(), [
        ALLOW,
      ]);
    }
    const unmet = precondition(request);
    if (unmet !== undefined) return flow.respond(request, unmet.status, unmet.reason, o.tag(), unmet.extra);
    if (request.method === "OPTIONS") return flow.respond(request, 200, "OK", o.tag(), [ALLOW]);
    const { certificate, fingerprint, identity } = flow.connection;
    const certified = certificate.identities.map((one) => one.identity);
    const { from } = peerParties(request, certified.includes(identity) ? certified : [identity], o.owner);
    const message = arrivedMessage(request, from);
    await o.inbox.receivePlain(
      { kind: "message", peer: { identity: from, fingerprint, certificate }, ...message },
      o.signal,
    );
    flow.respond(request, 200, "OK", o.tag());
  } catch (error) {
    const failure = asSuiteError(error);
    const { status, reason } = statusOfThrown(failure);
    flow.tell({ error: failure.code, status }, "a peer's request was refused");
    flow.respond(request, status, reason, o.tag(), status === 503 ? [{ name: "retry-after", value: "5" }] : []);
  }
}
