import { type CipherGCMTypes, createCipheriv, createHmac } from "node:crypto";

/**
 * One fatal TLS 1.3 alert as a finished record (RFC 8446 §5.2, §6), made from the traffic secret that Node tells in its
 * key log. Node itself never sends an alert for a certificate it does not like; this makes our refusal look to the peer
 * exactly as if it had been refused by OpenSSL inside the handshake.
 *
 * @param cipher OpenSSL's name of the negotiated suite
 * @param secret the traffic secret of the direction in which the alert goes; nothing was sent under it before
 * @returns 24 bytes, or undefined for a suite this program does not know (the caller then just closes)
 */
export function alertRecord(cipher: string, secret: Buffer, alert: number): Buffer | undefined {
  const suite = SUITES[cipher];
  if (suite === undefined || secret.length !== suite.hashBytes) return undefined;
  const key = expandLabel(suite.hash, secret, "key", suite.keyBytes);
  const nonce = expandLabel(suite.hash, secret, "iv", 12); // sequence number 0 leaves the static IV as it is (§5.3)
  const header = Buffer.from([0x17, 0x03, 0x03, 0x00, 19]);
  const aead = createCipheriv(suite.aead as CipherGCMTypes, key, nonce, { authTagLength: 16 });
  aead.setAAD(header);
  const sealed = Buffer.concat([aead.update(Buffer.from([FATAL, alert, CONTENT_TYPE_ALERT])), aead.final()]);
  return Buffer.concat([header, sealed, aead.getAuthTag()]);
}

/** The secret of one NSS key log line of `label`, or undefined if the line is another one. */
export function keyLogSecret(line: Buffer, label: string): Buffer | undefined {
  const text = line.toString("latin1");
  if (!text.startsWith(`${label} `)) return undefined;
  return Buffer.from(text.trimEnd().slice(text.lastIndexOf(" ") + 1), "hex");
}

const FATAL = 2;
const CONTENT_TYPE_ALERT = 21;

interface Suite {
  aead: "aes-128-gcm" | "aes-256-gcm" | "chacha20-poly1305";
  keyBytes: number;
  hash: "sha256" | "sha384";
  hashBytes: number;
}

const SUITES: Readonly<Record<string, Suite>> = {
  TLS_AES_128_GCM_SHA256: { aead: "aes-128-gcm", keyBytes: 16, hash: "sha256", hashBytes: 32 },
  TLS_AES_256_GCM_SHA384: { aead: "aes-256-gcm", keyBytes: 32, hash: "sha384", hashBytes: 48 },
  TLS_CHACHA20_POLY1305_SHA256: { aead: "chacha20-poly1305", keyBytes: 32, hash: "sha256", hashBytes: 32 },
};

/** HKDF-Expand-Label with an empty context (RFC 8446 §7.1); every length here fits one HMAC block. */
function expandLabel(hash: string, secret: Buffer, label: string, length: number): Buffer {
  const name = Buffer.from(`tls13 ${label}`, "latin1");
  const info = Buffer.concat([Buffer.from([0, length, name.length]), name, Buffer.from([0])]);
  return createHmac(hash, secret)
    .update(info)
    .update(Buffer.from([1]))
    .digest()
    .subarray(0, length);
}
