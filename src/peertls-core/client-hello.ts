import type { Socket } from "node:net";

const HEADER = 5;
/** RFC 8446 §5.1; a longer first record is no ClientHello, and OpenSSL will say so. */
const MAX_RECORD = 16_384;

/**
 * Looks at the first TLS record of an accepted connection and puts it back: whether the ClientHello names `alpn` has to be
 * known before TLS begins, because only then can something be put below it. No proof of anything: whoever wants to can
 * write the name elsewhere in it.
 */
export function peekHello(raw: Socket, alpn: string, seen: (named: boolean) => void): void {
  const name = Buffer.concat([Buffer.of(alpn.length), Buffer.from(alpn)]);
  let gathered: Buffer = Buffer.alloc(0);
  const done = (named: boolean) => {
    raw.off("data", take);
    raw.off("end", gone);
    raw.off("close", gone);
    raw.pause();
    if (gathered.length > 0) raw.unshift(gathered);
    seen(named);
  };
  const gone = () => raw.destroy();
  const take = (chunk: Buffer) => {
    gathered = Buffer.concat([gathered, chunk]);
    const length = gathered.length < HEADER ? 0 : gathered.readUInt16BE(3);
    if (gathered.length >= HEADER + Math.min(length, MAX_RECORD)) done(gathered.includes(name));
  };
  raw.on("data", take);
  raw.once("end", gone);
  raw.once("close", gone);
}
