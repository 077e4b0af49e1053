import { createHash } from "node:crypto";
import { sign, signatureAlgorithmFor } from "./algorithm.ts";
import type { Certificate } from "./certificate.ts";
import * as der from "./der.ts";
import { encodeReason } from "./distribution-point.ts";
import type { Issuer } from "./issue.ts";
import { type OcspAnswer, type OcspResponseStatus, ocspResponseStatuses } from "./ocsp.ts";
import { type CertId, encodeNonce } from "./ocsp-request.ts";
import { ocspType } from "./oid.ts";

export interface OcspAnswerTemplate extends Pick<OcspAnswer, "status" | "thisUpdate" | "nextUpdate"> {
  /** From the request, repeated as it stood there. */
  readonly id: CertId;
}

/**
 * Answers and signs, as DER.
 * @param o.signer the CA, or whom it certified for that
 * @param o.certificates the delegate's certificate, so that it need not be known; absent if the CA itself signs
 * @param o.nonce of the request, if it had one
 */
export function issueOcspResponse(o: {
  signer: Issuer;
  answers: readonly OcspAnswerTemplate[];
  producedAt: Date;
  nonce?: Uint8Array;
  certificates?: readonly Certificate[];
}): Buffer {
  const { certificate, privateKey } = o.signer;
  const keyHash = createHash("sha1").update(certificate.key.keyBits).digest();
  const tbs = der.sequence(
    der.explicit(2, der.octetString(keyHash)),
    generalizedTime(o.producedAt),
    der.sequence(...o.answers.map(encodeAnswer)),
    ...(o.nonce === undefined ? [] : [der.explicit(1, der.sequence(encodeNonce(o.nonce)))]),
  );
  const certificates = (o.certificates ?? []).map((one) => one.der);
  const basic = der.sequence(
    tbs,
    signatureAlgorithmFor(privateKey).der,
    der.bitString(sign(privateKey, tbs)),
    ...(certificates.length === 0 ? [] : [der.explicit(0, der.sequence(...certificates))]),
  );
  const bytes = der.sequence(der.oid(ocspType.basicResponse), der.octetString(basic));
  return der.sequence(responseStatus("successful"), der.explicit(0, bytes));
}

/** Says why there is no answer; unsigned, as RFC 6960 §2.3 has it. */
export function issueOcspError(status: Exclude<OcspResponseStatus, "successful">): Buffer {
  return der.sequence(responseStatus(status));
}

function responseStatus(status: OcspResponseStatus): Buffer {
  const [code] = Object.entries(ocspResponseStatuses).find(([, name]) => name === status) ?? ["2"];
  return der.encode(der.tag.enumerated, Buffer.of(Number(code)));
}

function encodeAnswer({ id, status, thisUpdate, nextUpdate }: OcspAnswerTemplate): Buffer {
  const next = nextUpdate === undefined ? [] : [der.explicit(0, generalizedTime(nextUpdate))];
  return der.sequence(id.der, encodeStatus(status), generalizedTime(thisUpdate), ...next);
}

function encodeStatus(status: OcspAnswer["status"]): Buffer {
  if (status.status === "good") return der.implicitPrimitive(0, Buffer.alloc(0));
  if (status.status === "unknown") return der.implicitPrimitive(2, Buffer.alloc(0));
  const reason = status.reason === "unspecified" ? [] : [der.explicit(0, encodeReason(status.reason))];
  return der.implicitConstructed(1, generalizedTime(status.since), ...reason);
}

/** RFC 6960 has no UTCTime. */
function generalizedTime(date: Date): Buffer {
  const text = `${date.toISOString().replace(/\.\d+Z$|[-:T]/g, "")}Z`;
  return der.encode(der.tag.generalizedTime, Buffer.from(text, "latin1"));
}
