import * as der from "../pki/der.ts";
import { SuiteError } from "../pki/suite-error.ts";
import { contentType } from "./algorithms.ts";
import { BerReader } from "./ber-read.ts";
import { ByteReader } from "./byte-reader.ts";
import { enterContentInfo, isEnveloped, readEnvelopeHead } from "./envelope-read.ts";
import { malformed } from "./failure.ts";
import type { RecipientId } from "./keyring.ts";
import type { RecipientInfo } from "./recipient-read.ts";

/** What anybody can see of a CMS object. */
export type Peeked =
  | {
      readonly type: "auth-enveloped" | "enveloped";
      readonly cipher: string;
      readonly recipients: readonly PeekedRecipient[];
    }
  | { readonly type: "signed" | "compressed" | "other" };

export interface PeekedRecipient {
  readonly kind: RecipientInfo["kind"];
  /** The certificates that it is for; `names(id, certificate)` of keyring.ts tells whether one is meant. */
  readonly ids: readonly RecipientId[];
}

/** Reads the beginning of a CMS object, no key needed. Throws SuiteError "seal-malformed" or "seal-unsupported". */
export async function peek(source: AsyncIterable<Uint8Array>): Promise<Peeked> {
  const ber = new BerReader(new ByteReader(source));
  try {
    const type = await enterContentInfo(ber);
    if (!isEnveloped(type)) return { type: otherTypes.get(type) ?? "other" };
    const recipients: PeekedRecipient[] = [];
    const { cipher } = await readEnvelopeHead(ber, type, ({ kind, recipients: keys }) => {
      recipients.push({ kind, ids: keys.map(({ id }) => id) });
    });
    return {
      type: type === contentType.envelopedData ? "enveloped" : "auth-enveloped",
      cipher: cipher.name,
      recipients,
    };
  } catch (thrown) {
    if (thrown instanceof SuiteError && thrown.code !== "syntax") throw thrown;
    throw malformed("envelope", thrown);
  }
}

/** Whether what begins so is an AuthEnvelopedData: its smime-type is another than an EnvelopedData's (RFC 8551 §3.2.2). */
export function isAuthenticated(beginning: Uint8Array): boolean {
  return Buffer.from(beginning.subarray(0, 32)).includes(der.oid(contentType.authEnvelopedData));
}

const otherTypes: ReadonlyMap<string, "signed" | "compressed"> = new Map([
  [contentType.signedData, "signed"],
  [contentType.compressedData, "compressed"],
]);
