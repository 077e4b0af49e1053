import { identitiesIn } from "../pki/certificate.ts";
import { type ParsedCsr, parseCsr, requestedAltNames } from "../pki/csr.ts";
import { readDer } from "../pki/der.ts";
import type { GeneralName } from "../pki/general-name.ts";
import { type Identity, parseIdentity } from "../pki/identity.ts";
import { attributeTexts, encodeName, readName } from "../pki/name.ts";
import { attributeType } from "../pki/oid.ts";

/** Whom a request names, if it names one person and nothing else; undefined if it cannot be read, too. */
export function namesOf(der: Uint8Array): { identity: Identity; name: string } | undefined {
  try {
    const csr = parseCsr(der);
    const { subject } = csr;
    const alternatives = requestedAltNames(csr);
    const [first] = identitiesIn({ subject, subjectAltNames: alternatives });
    if (first === undefined || !namesExactly(csr, first.identity)) return undefined;
    const [name = first.identity] = attributeTexts(subject, attributeType.commonName);
    return { identity: first.identity, name };
  } catch {
    return undefined;
  }
}

/** Whether a CA that copies all names of the request would certify that identity and nothing else. */
export function namesExactly(csr: ParsedCsr, identity: Identity): boolean {
  const names = requestedAltNames(csr);
  const { subject } = csr;
  const texts = [attributeType.emailAddress, attributeType.userId].flatMap((type) => attributeTexts(subject, type));
  return (
    names.length > 0 && names.every((name) => isName(name, identity)) && texts.every((text) => says(text, identity))
  );
}

function isName(name: GeneralName, identity: Identity): boolean {
  const found = identitiesIn({ subject: NOBODY, subjectAltNames: [name] });
  return found.length === 1 && found[0]?.identity === identity;
}

const NOBODY = readName(readDer(encodeName([])));

function says(text: string, identity: Identity): boolean {
  try {
    return parseIdentity(text) === identity;
  } catch {
    return false;
  }
}
