import type { Identity } from "../pki/identity.ts";

/** How the owner's own programs prove themselves to the local listeners: by app passwords, never by the person's key. */
export interface OwnerAccess {
  readonly owner: Identity;
  /** Digest realm (RFC 8760): the owner's domain. */
  readonly realm: string;
  /** @param user the owner's identity or its local part. @returns the app password's id, or undefined */
  verify(user: string, password: string): string | undefined;
  /** HA1 values of all app passwords, for `user` = the local part of the owner. */
  ha1s(algorithm: "SHA-256" | "MD5"): readonly { id: string; ha1: string }[];
}
