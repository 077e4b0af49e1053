import type { Identity } from "../../src/pki/identity.ts";
import type { Canonical } from "../../src/sixid/canonical.ts";
import { makeRequest } from "../../src/sixid/request.ts";
import { sign } from "../../src/sixid/signed.ts";
import { payloadOf } from "./directory.ts";
import type { TestCredentials, TestPerson } from "./pki.ts";

/** A request to be admitted; `by`: who signs it, the asker if absent. */
export function requestFrom(
  from: TestPerson,
  to: Identity,
  o: { text?: string; by?: TestCredentials; now?: Date } = {},
): Promise<string> {
  const { text = "Hello", by = from.auth, now = new Date() } = o;
  return makeRequest({ from: from.identity, name: "A", to, text, signer: by, now });
}

/** A request with other members in it, signed by the asker. */
export async function altered(from: TestPerson, to: Identity, change: object): Promise<string> {
  const told = { ...(JSON.parse(payloadOf(await requestFrom(from, to))) as object), ...change };
  return sign("sixid-request", told as Canonical, from.auth, "x5c");
}

export function expiredRequest(from: TestPerson, to: Identity): Promise<string> {
  const now = Math.floor(Date.now() / 1000);
  return altered(from, to, { issued: now - 86_400, expires: now - 1 });
}

/** The same object with other words and the old signature. */
export function tampered(jws: string): string {
  const [head, , signature] = jws.split(".");
  return [head, Buffer.from(payloadOf(jws).replace("Hello", "Howdy")).toString("base64url"), signature].join(".");
}
