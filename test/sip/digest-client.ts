import { createHash } from "node:crypto";

export function hashed(algorithm: "SHA-256" | "MD5", text: string): string {
  return createHash(algorithm === "MD5" ? "md5" : "sha256")
    .update(text, "utf8")
    .digest("hex");
}

/** What a client sends (RFC 7616 §3.4). `told`, `nc` as text, `qop`: to send something else than was computed with. */
export function authorization(o: {
  user: string;
  realm: string;
  password: string;
  method: string;
  uri: string;
  nonce: string;
  nc: number | string;
  algorithm: "SHA-256" | "MD5";
  cnonce?: string;
  qop?: string;
  told?: string;
}): string {
  const cnonce = o.cnonce ?? "c0ffee";
  const qop = o.qop ?? "auth";
  const nc = typeof o.nc === "string" ? o.nc : o.nc.toString(16).padStart(8, "0");
  const ha1 = hashed(o.algorithm, `${o.user}:${o.realm}:${o.password}`);
  const ha2 = hashed(o.algorithm, `${o.method}:${o.uri}`);
  const response = hashed(o.algorithm, `${ha1}:${o.nonce}:${nc}:${cnonce}:${qop}:${ha2}`);
  return `Digest username="${o.user}", realm="${o.realm}", nonce="${o.nonce}", uri="${o.uri}", response="${response}", algorithm=${o.told ?? o.algorithm}, cnonce="${cnonce}", nc=${nc}${qop === "" ? "" : `, qop=${qop}`}`;
}
