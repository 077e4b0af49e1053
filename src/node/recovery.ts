import type { PeerAddress } from "../peertls-core/connection.ts";
import { httpsClient } from "../peertls-core/https-client.ts";
import { type Identity, identityDomain, parseIdentity } from "../pki/identity.ts";
import { SuiteError } from "../pki/suite-error.ts";
import { ask } from "../sixid/ask.ts";
import { pinnedName } from "../sixid/locate.ts";
import { crockford } from "../sixid/server/accounts.ts";
import { recoveryHash } from "../sixid/server/backups.ts";
import { anchorsOf } from "./anchors-of.ts";
import { makeBackup, type Restored, restoreBackup } from "./backup.ts";
import type { PeerConfig } from "./config.ts";
import type { Home } from "./home.ts";
import { KeyFiles } from "./keys.ts";
import { ownServers, serversOf } from "./own-servers.ts";
import { readCertificates } from "./trust-rules.ts";

/** What opens the way to a backup that is kept with the directory; the passphrase is not in it. */
export interface RecoverySheet {
  identity: Identity;
  /** The directory's server; absent: the DNS tells. */
  at?: PeerAddress;
  code: string;
  /** 128 bits of the root key's hash, 32 hex digits. */
  rootHash: string;
}

/** `sixtalk-recovery:alice@alpha.test?code=…&root=…`, with `&at=[::1]:4606` where the DNS does not tell. */
export function formatRecovery({ identity, at, code, rootHash }: RecoverySheet): string {
  const where = at === undefined ? {} : { at: `${at.host.includes(":") ? `[${at.host}]` : at.host}:${at.port}` };
  return `sixtalk-recovery:${encodeURI(identity)}?${new URLSearchParams({ code, root: rootHash, ...where })}`;
}

/** @throws SuiteError syntax */
export function parseRecovery(text: string): RecoverySheet {
  const [, person = "", query] = /^sixtalk-recovery:([^?]+)\?(.+)$/.exec(text.trim()) ?? [];
  const given = new URLSearchParams(query);
  const [code, rootHash, at] = [given.get("code") ?? "", given.get("root") ?? "", given.get("at")];
  const [, v6, v4, port] = /^(?:\[([0-9a-fA-F:.]+)\]|([0-9.]+)):(\d{1,5})$/.exec(at ?? "") ?? [];
  const host = v6 ?? v4;
  if (query === undefined || code === "" || !/^[0-9a-f]{32}$/.test(rootHash) || (at !== null && host === undefined))
    throw new SuiteError("syntax", "not a recovery link", {
      fault: "local",
      details: { why: "it looks like sixtalk-recovery:USER@DOMAIN?code=…&root=…" },
    });
  return {
    identity: parseIdentity(decodeURI(person)),
    ...(host === undefined ? {} : { at: { host, port: Number(port) } }),
    code,
    rootHash,
  };
}

/**
 * Makes a backup and leaves it with the own directory.
 * @param o.newCode whether who has the recovery code so far is to be shut out by another
 * @returns the recovery link, if there is another one now
 * @throws SuiteError as `makeBackup`; of the directory; limit-exceeded when it is too large for it
 */
export async function depositBackup(
  o: {
    home: Home;
    peer: PeerConfig;
    dnsServers: readonly string[];
    passphrase: string;
    newCode: boolean;
    random: (length: number) => Buffer;
    clock: () => Date;
  },
  signal: AbortSignal,
): Promise<{ version: number; link?: string }> {
  const { home, peer, random, clock } = o;
  const { file, identity } = await makeBackup({ home, passphrase: o.passphrase, random }, signal);
  const roots = readCertificates(peer.directory.anchor);
  const keys = new KeyFiles(home).load(identity);
  const domain = identityDomain(identity);
  const http = httpsClient({
    addresses: () => ownServers(peer, o.dnsServers, clock).sixid(),
    ...{ serverName: domain, indicatedName: pinnedName(domain), anchors: () => anchorsOf(domain, roots), clock },
    credentials: () => keys.auth,
  });
  const put = (recovery: string | undefined) =>
    ask(
      http,
      {
        method: "PUT",
        path: "/v1/backups",
        body: file,
        type: "application/pkcs12",
        ...(recovery === undefined ? {} : { headers: { "recovery-hash": recovery } }),
        accepted: [409, 413],
      },
      signal,
    );
  try {
    let code: string | undefined = o.newCode ? crockford(random(16)) : undefined;
    let answer = await put(code && recoveryHash(identity, code));
    if (answer.status === 409) {
      code = crockford(random(16)); // the first one brings a code
      answer = await put(recoveryHash(identity, code));
    }
    if (answer.status === 413)
      throw new SuiteError("limit-exceeded", "the backup is too large for the directory: keep it in a file", {
        fault: "local",
        details: { bytes: file.length },
      });
    const { version } = JSON.parse(answer.body.toString("utf8")) as { version: number };
    if (code === undefined) return { version };
    const { host, port } = peer.directory;
    const at = host === undefined ? {} : { at: { host, port } };
    const rootHash = roots[0]?.fingerprint.slice(0, 32) ?? "";
    return { version, link: formatRecovery({ identity, ...at, code, rootHash }) };
  } finally {
    http.close();
  }
}

/**
 * Makes an empty home that of the newest backup which is kept with the directory. A wrong passphrase changes nothing anywhere.
 * @throws SuiteError auth-failed for another code, or another passphrase (`details.what`); busy; as `restoreBackup`
 */
export async function recoverHome(
  o: {
    home: Home;
    sheet: RecoverySheet;
    dnsServers: readonly string[];
    /** Asked for once the backup is here, and again after wrong ones, for it is not fetched again; undefined: no more. */
    passphrases: (tries: number) => Promise<readonly string[] | undefined>;
    clock: () => Date;
  },
  signal: AbortSignal,
): Promise<Restored> {
  const { home, sheet, clock } = o;
  const file = await fetchBackup(sheet, o.dnsServers, clock, signal);
  for (let tries = 0, wrong: unknown; ; tries += 1) {
    const passphrases = await o.passphrases(tries);
    if (passphrases === undefined) throw wrong;
    try {
      return await restoreBackup({ home, file, passphrases }, signal);
    } catch (error) {
      if (!(error instanceof SuiteError) || error.code !== "auth-failed") throw error;
      wrong = error;
    }
  }
}

async function fetchBackup(
  { identity, at, code, rootHash }: RecoverySheet,
  dnsServers: readonly string[],
  clock: () => Date,
  signal: AbortSignal,
): Promise<Buffer> {
  const domain = identityDomain(identity);
  const servers = serversOf(domain, undefined, dnsServers, clock);
  const http = httpsClient({
    addresses: async () => (at === undefined ? servers.sixid() : [at]),
    ...{ serverName: domain, indicatedName: pinnedName(domain), rootHash, clock },
  });
  try {
    const answer = await ask(
      http,
      {
        method: "POST",
        path: "/v1/recovery",
        body: JSON.stringify({ user: identity, code }),
        type: "application/json",
        accepted: [401],
      },
      signal,
    );
    if (answer.status === 401)
      throw new SuiteError("auth-failed", "the directory has no backup that this recovery link opens", {
        fault: "local",
        details: { what: "recovery code" },
      });
    return answer.body;
  } finally {
    http.close();
  }
}
