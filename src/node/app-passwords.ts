import { createHash, timingSafeEqual } from "node:crypto";
import type { OwnerAccess } from "../delivery/owner-access.ts";
import { type Identity, identityDomain, identityLocal } from "../pki/identity.ts";
import type { AppPassword, State } from "./state.ts";

const ALPHABET = "abcdefghijkmnopqrstuvwxyz23456789"; // nothing that could be misread
const CHARACTERS = 26; // more than 128 bits

/** Passwords of the owner's programs: made here, random, shown once, kept as hashes. */
export class AppPasswords implements OwnerAccess {
  readonly owner: Identity;
  readonly realm: string;
  readonly #state: State;

  constructor(state: State, owner: Identity) {
    this.#state = state;
    this.owner = owner;
    this.realm = identityDomain(owner);
  }

  /** @returns the password, to be shown this once */
  create(label: string, now: Date, random: (length: number) => Buffer): { id: string; password: string } {
    const id = random(4).toString("hex");
    const password = randomText(random);
    const user = identityLocal(this.owner);
    const ha1 = (algorithm: string) =>
      createHash(algorithm).update(`${user}:${this.realm}:${password}`, "utf8").digest("hex");
    this.#state.addAppPassword({
      id,
      label,
      sha256: sha256(password),
      ha1Sha256: ha1("sha256"),
      ha1Md5: ha1("md5"),
      createdAt: now,
    });
    return { id, password };
  }

  list(): AppPassword[] {
    return this.#state.appPasswords();
  }

  remove(id: string): boolean {
    return this.#state.removeAppPassword(id);
  }

  verify(user: string, password: string): string | undefined {
    const named = user.toLowerCase() === this.owner || user.toLowerCase() === identityLocal(this.owner);
    const given = Buffer.from(sha256(password));
    const found = this.#state.appPasswords().find((one) => timingSafeEqual(Buffer.from(one.sha256), given));
    return named ? found?.id : undefined;
  }

  ha1s(algorithm: "SHA-256" | "MD5"): { id: string; ha1: string }[] {
    return this.#state
      .appPasswords()
      .map(({ id, ha1Sha256, ha1Md5 }) => ({ id, ha1: algorithm === "MD5" ? ha1Md5 : ha1Sha256 }));
  }
}

function sha256(text: string): string {
  return createHash("sha256").update(text, "utf8").digest("hex");
}

/** Without modulo bias: bytes beyond a multiple of the alphabet's length are passed over. */
function randomText(random: (length: number) => Buffer): string {
  let text = "";
  const limit = 256 - (256 % ALPHABET.length);
  while (text.length < CHARACTERS) {
    for (const byte of random(CHARACTERS))
      if (byte < limit && text.length < CHARACTERS) text += ALPHABET.charAt(byte % ALPHABET.length);
  }
  return text;
}
