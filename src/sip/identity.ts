import { type Identity, parseIdentity } from "../pki/identity.ts";
import { SuiteError } from "../pki/suite-error.ts";
import { type SipRequest, value, values } from "./grammar.ts";
import { parseNameAddr } from "./headers.ts";
import { addressOfRecord, parseSipUri } from "./uri.ts";

export interface Parties {
  from: Identity;
  to: Identity;
}

/** From and Request-URI as identities. @throws SuiteError syntax; unsupported for a Request-URI of another scheme */
export function partiesOf(request: SipRequest): Parties {
  return { from: namedIn(value(request.headers, "from") ?? ""), to: personOf(parseSipUri(request.uri)) };
}

/** The person of a From or To. @throws SuiteError syntax, also for another scheme: nobody can be meant by it */
export function namedIn(text: string): Identity {
  try {
    return personOf(parseNameAddr(text).uri);
  } catch (cause) {
    if (!(cause instanceof SuiteError) || cause.code !== "unsupported") throw cause;
    throw new SuiteError("syntax", "the URI names no person", { fault: "peer", cause });
  }
}

/**
 * What a peer may say: From is an identity of its certificate, a P-Asserted-Identity too; Request-URI and To are hosted here.
 * @throws SuiteError forbidden (403), unknown-recipient (404), syntax
 */
export function peerParties(request: SipRequest, certified: readonly Identity[], owner: Identity): Parties {
  const parties = partiesOf(request);
  if (!certified.includes(parties.from))
    throw new SuiteError("forbidden", "From is not whom the certificate names", { fault: "peer" });
  if (values(request.headers, "p-asserted-identity").some((asserted) => namedIn(asserted) !== parties.from)) {
    throw new SuiteError("forbidden", "the asserted identity is not whom the certificate names", { fault: "peer" });
  }
  const to = namedIn(value(request.headers, "to") ?? "");
  if (parties.to !== owner || to !== owner)
    throw new SuiteError("unknown-recipient", "nobody of that name is hosted here", { fault: "peer" });
  return parties;
}

/** What the owner's program may say: From is the owner. @throws SuiteError forbidden, syntax */
export function localParties(request: SipRequest, owner: Identity): Parties {
  const parties = partiesOf(request);
  if (parties.from !== owner)
    throw new SuiteError("forbidden", "From is not the owner of this node", { fault: "peer" });
  return parties;
}

/** A REGISTER's Request-URI names the domain; whom it is about stands in To (§10.2). @throws SuiteError as localParties, unknown-recipient */
export function registeredParties(request: SipRequest, owner: Identity): Parties {
  const from = namedIn(value(request.headers, "from") ?? "");
  const to = namedIn(value(request.headers, "to") ?? "");
  if (from !== owner) throw new SuiteError("forbidden", "From is not the owner of this node", { fault: "peer" });
  if (to !== owner) throw new SuiteError("unknown-recipient", "nobody of that name registers here", { fault: "peer" });
  return { from, to };
}

export function personOf(uri: ReturnType<typeof parseSipUri>): Identity {
  const address = addressOfRecord(uri);
  if (address === undefined) throw new SuiteError("syntax", "the URI names no person", { fault: "peer" });
  try {
    return parseIdentity(address);
  } catch (cause) {
    throw new SuiteError("syntax", "the URI names no person", { fault: "peer", cause });
  }
}
