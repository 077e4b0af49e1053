import { type AeadCipher, aes256Gcm, aes256Wrap, type KeyWrap } from "./algorithms.ts";

/** For whom a seal is made: what the recipient's program is known to read. */
export type Profile = "peer";

export interface ProfileAlgorithms {
  readonly content: AeadCipher;
  /** To an RSA key. */
  readonly transport: "oaep-sha256";
  /** To an EC key: X9.63 SHA-256, then this wrap. */
  readonly wrap: KeyWrap;
}

const profiles: Readonly<Record<Profile, ProfileAlgorithms>> = {
  peer: { content: aes256Gcm, transport: "oaep-sha256", wrap: aes256Wrap },
};

export function algorithmsOf(profile: Profile): ProfileAlgorithms {
  return profiles[profile];
}
