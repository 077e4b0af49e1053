import type { PeerAddress } from "../peertls-core/connection.ts";
import { type Identity, parseIdentity } from "../pki/identity.ts";
import { SuiteError } from "../pki/suite-error.ts";

/** What a person needs to enrol: who, where, the one-time code, and 128 bits of the root key's hash, so that nobody stands between. */
export interface Invitation {
  identity: Identity;
  /** Where the domain's servers are; absent: the DNS tells. */
  at?: { irp: PeerAddress; sixidPort: number };
  code: string;
  /** 32 hex digits. */
  rootHash: string;
}

/** `sixtalk://[::1]:4604/alice@alpha.test?sixid=4606&code=7K3M-…&root=…`, or `sixtalk:alice@alpha.test?code=…&root=…` */
export function formatInvitation({ identity, at, code, rootHash }: Invitation): string {
  const secrets = { code, root: rootHash };
  if (at === undefined) return `sixtalk:${encodeURI(identity)}?${new URLSearchParams(secrets)}`;
  const { host, port } = at.irp;
  const query = new URLSearchParams({ sixid: String(at.sixidPort), ...secrets });
  return `sixtalk://${host.includes(":") ? `[${host}]` : host}:${port}/${encodeURI(identity)}?${query}`;
}

/** @throws SuiteError syntax */
export function parseInvitation(text: string): Invitation {
  const match = /^sixtalk:(?:\/\/(?:\[([0-9a-fA-F:.]+)\]|([0-9.]+)):(\d{1,5})\/)?((?!\/)[^?]+)\?(.+)$/.exec(
    text.trim(),
  );
  if (match === null)
    throw bad(
      "it looks like sixtalk://[ADDRESS]:PORT/USER@DOMAIN?sixid=…&code=…&root=… or sixtalk:USER@DOMAIN?code=…&root=…",
    );
  const [, v6, v4, port, person, query] = match;
  const given = new URLSearchParams(query);
  const code = given.get("code") ?? "";
  const rootHash = given.get("root") ?? "";
  const host = v6 ?? v4;
  const sixidPort = Number(given.get("sixid") ?? "4606");
  if (code === "" || !/^[0-9a-f]{32}$/.test(rootHash)) throw bad("a part of it is missing");
  if (!isPort(Number(port ?? "0")) || !isPort(sixidPort)) throw bad("a port is none");
  return {
    identity: parseIdentity(decodeURI(person ?? "")),
    ...(host === undefined ? {} : { at: { irp: { host, port: Number(port) }, sixidPort } }),
    code,
    rootHash,
  };
}

function isPort(number: number): boolean {
  return Number.isInteger(number) && number >= 0 && number <= 65_535;
}

function bad(why: string): SuiteError {
  return new SuiteError("syntax", "not an invitation", { fault: "local", details: { why } });
}
