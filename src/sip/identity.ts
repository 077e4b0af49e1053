import { type Identity, parseIdentity } from "../pki/identity.ts";
import { SuiteError } from "../pki/suite-error.ts";
import { type SipRequest, value } from "./grammar.ts";
import { parseNameAddr } from "./headers.ts";
import { addressOfRecord, parseSipUri } from "./uri.ts";

export interface Parties {
  from: Identity;
  to: Identity;
}

/** From and Request-URI as identities. @throws SuiteError syntax, unsupported */
export function partiesOf(request: SipRequest): Parties {
  return {
    from: personOf(parseNameAddr(value(request.headers, "from") ?? "").uri),
    to: personOf(parseSipUri(request.uri)),
  };
}

/**
 * What a peer may say: From is an identity of its certificate, a P-Asserted-Identity too; Request-URI and To are hosted here.
 * @throws SuiteError forbidden (403), unknown-recipient (404), syntax
 */
export function peerParties(request: SipRequest, certified: readonly Identity[], owner: Identity): Parties {
  const parties = partiesOf(request);
  if (!certified.includes(parties.from))
    throw new SuiteError("forbidden", "From is not whom the certificate names", { fault: "peer" });
  const asserted = value(request.headers, "p-asserted-identity");
  if (asserted !== undefined && personOf(parseNameAddr(asserted).uri) !== parties.from) {
    throw new SuiteError("forbidden", "the asserted identity is not whom the certificate names", { fault: "peer" });
  }
  const to = personOf(parseNameAddr(value(request.headers, "to") ?? "").uri);
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

export function personOf(uri: ReturnType<typeof parseSipUri>): Identity {
  const address = addressOfRecord(uri);
  if (address === undefined) throw new SuiteError("syntax", "the URI names no person", { fault: "peer" });
  try {
    return parseIdentity(address);
  } catch (cause) {
    throw new SuiteError("syntax", "the URI names no person", { fault: "peer", cause });
  }
}
