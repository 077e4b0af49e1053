import {
  aes128Gcm,
  aes128Wrap,
  aes256Cbc,
  aes256Gcm,
  aes256Wrap,
  type ContentCipher,
  type KeyWrap,
} from "./algorithms.ts";

/**
 * For whom a seal is made: a node, a message between programs (RFC 8591), or somebody of whose program nothing is known
 * but that it reads S/MIME.
 */
export type Profile = "peer" | "sip" | "foreign";

export interface ProfileAlgorithms {
  readonly content: ContentCipher;
  /** To an RSA key. */
  readonly transport: "oaep-sha256" | "pkcs1";
  /** To an EC key: X9.63 SHA-256, then this wrap. */
  readonly wrap: KeyWrap;
}

/** RSA v1.5 with CBC is all that older programs read; RFC 8551 wants GCM for unknown ones, which most readers lack. */
const profiles: Readonly<Record<Profile, ProfileAlgorithms>> = {
  peer: { content: aes256Gcm, transport: "oaep-sha256", wrap: aes256Wrap },
  sip: { content: aes128Gcm, transport: "oaep-sha256", wrap: aes128Wrap },
  foreign: { content: aes256Cbc, transport: "pkcs1", wrap: aes256Wrap },
};

/** What a recipient's own signed capabilities (RFC 8551 §2.5.2) add to the profile of unknown ones. */
export interface Capabilities {
  readonly gcm: boolean;
  readonly oaep: boolean;
}

export function algorithmsOf(profile: Profile, known?: Capabilities): ProfileAlgorithms {
  const algorithms = profiles[profile];
  if (profile !== "foreign" || known === undefined) return algorithms;
  return {
    ...algorithms,
    ...(known.gcm ? { content: aes256Gcm } : {}),
    ...(known.oaep ? { transport: "oaep-sha256" } : {}),
  };
}
