import { SuiteError } from "../pki/suite-error.ts";

/** Crockford's base32: nothing in it can be misread. */
const alphabet = "0123456789ABCDEFGHJKMNPQRSTVWXYZ";
const groups = 6;
const groupLength = 4;
const randomOctets = 15;
const minOwnLength = 14;

/** A passphrase of 120 bits: six groups of four characters, with hyphens between them. */
export function generatePassphrase(random: (length: number) => Uint8Array): string {
  let bits = BigInt(`0x${Buffer.from(random(randomOctets)).toString("hex")}`);
  let characters = "";
  for (let i = 0; i < groups * groupLength; i++) {
    characters = `${alphabet.charAt(Number(bits & 31n))}${characters}`;
    bits >>= 5n;
  }
  return grouped(characters);
}

/**
 * What to try for what somebody typed: as it stands, and, if it can be a generated one that was read from paper, as that was
 * printed: small letters, spaces or nothing for hyphens, O for 0, I and L for 1.
 */
export function typedPassphrases(typed: string): string[] {
  const characters = typed.toUpperCase().replace(/[\s-]/g, "").replaceAll("O", "0").replace(/[IL]/g, "1");
  const printed = grouped(characters);
  return isGenerated(printed) && printed !== typed ? [typed, printed] : [typed];
}

/** Whether it has the form of those that `generatePassphrase` makes. */
export function isGenerated(passphrase: string): boolean {
  return /^[0-9A-HJKMNP-TV-Z]{4}(?:-[0-9A-HJKMNP-TV-Z]{4}){5}$/.test(passphrase);
}

/**
 * A passphrase of the owner's own: 14 printable ASCII characters or more. Others are encoded in one way by PBES1, in another by PBES2,
 * and in a third by some readers.
 * @throws SuiteError syntax
 */
export function checkOwnPassphrase(passphrase: string): void {
  if (/^[\x20-\x7e]*$/.test(passphrase) && passphrase.length >= minOwnLength) return;
  throw new SuiteError("syntax", "a passphrase of your own needs 14 characters or more, all of them printable ASCII", {
    fault: "local",
  });
}

/** A passphrase as key derivations take it. */
export interface PassphraseOctets {
  /** For PBKDF2. */
  readonly utf8: Uint8Array;
  /** For the derivation of RFC 7292 appendix B: UTF-16, big-endian, two zero octets behind it. */
  readonly bmp: Uint8Array;
}

export function passphraseOctets(passphrase: string): PassphraseOctets {
  const bmp = Buffer.from(`${passphrase}\0`, "utf16le").swap16();
  return { utf8: Buffer.from(passphrase, "utf8"), bmp };
}

function grouped(characters: string): string {
  return (characters.match(/.{1,4}/g) ?? []).join("-");
}
