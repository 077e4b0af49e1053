import { type Certificate, parseCertificate } from "./certificate.ts";
import * as der from "./der.ts";
import { contentType } from "./oid.ts";
import { SuiteError } from "./suite-error.ts";

const maxBytes = 1 << 20;
const maxCertificates = 64;

/**
 * The certificates of a PKCS#7 "certs-only" message (RFC 8551 §3.8, RFC 7030 §4.1.3): a SignedData that nobody signed.
 * Which of them is the leaf its key tells, not its place. Total: throws nothing but SuiteError "certificate-malformed".
 */
export function readCertsOnly(bytes: Uint8Array): Certificate[] {
  if (bytes.length > maxBytes) throw malformed("too long");
  try {
    return certificatesIn(der.readDer(bytes)).map((element) => parseCertificate(element.bytes));
  } catch (cause) {
    if (cause instanceof SuiteError && cause.code === "syntax") throw malformed("syntax", cause);
    throw cause;
  }
}

/** Writes such a message; being a SET OF, the certificates are sorted by their octets. */
export function writeCertsOnly(certificates: readonly Certificate[]): Buffer {
  const sorted = certificates.map((one) => one.der).toSorted(Buffer.compare);
  const signedData = der.sequence(
    der.integer(1),
    der.set(),
    der.sequence(der.oid(contentType.data)),
    der.implicitConstructed(0, ...sorted),
    der.set(),
  );
  return der.sequence(der.oid(contentType.signedData), der.explicit(0, signedData));
}

function certificatesIn(whole: der.DerElement): der.DerElement[] {
  const outer = new der.DerCursor(sequenceOf(whole));
  if (der.readOid(outer.next(der.tag.oid)) !== contentType.signedData) throw malformed("not SignedData");
  const signedData = new der.DerCursor(sequenceOf(der.readDer(outer.next(der.contextConstructed(0)).content)));
  outer.end();
  der.readSmallInteger(signedData.next(der.tag.integer));
  signedData.next(der.tag.set); // digestAlgorithms
  signedData.next(der.tag.sequence); // encapContentInfo
  const certificates = signedData.optional(der.contextConstructed(0));
  signedData.optional(der.contextConstructed(1)); // CRLs
  const signers = signedData.next(der.tag.set);
  signedData.end();
  if (signers.content.length > 0) throw malformed("somebody signed");
  const found: der.DerElement[] = [];
  const cursor = new der.DerCursor(certificates?.content ?? new Uint8Array());
  while (!cursor.done) {
    if (found.length === maxCertificates) throw malformed("too many certificates");
    found.push(cursor.next(der.tag.sequence));
  }
  return found;
}

function sequenceOf(element: der.DerElement): Uint8Array {
  if (element.tag !== der.tag.sequence) throw malformed("not a sequence");
  return element.content;
}

function malformed(what: string, cause?: unknown): SuiteError {
  return new SuiteError("certificate-malformed", "not a well-formed certs-only message", {
    fault: "peer",
    details: { what },
    ...(cause === undefined ? {} : { cause }),
  });
}
