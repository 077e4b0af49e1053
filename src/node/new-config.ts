import { existsSync, readFileSync } from "node:fs";
import { join } from "node:path";
import { parse, stringify } from "yaml";
import { writeDurably } from "../irp/key-file.ts";
import type { PeerAddress } from "../peertls-core/connection.ts";
import type { Certificate } from "../pki/certificate.ts";
import { type Identity, identityDomain } from "../pki/identity.ts";
import { derToPem } from "../pki/pem.ts";
import { SuiteError } from "../pki/suite-error.ts";
import { parseConfig } from "./config.ts";
import { canListen, freePort } from "./free-port.ts";
import type { Home } from "./home.ts";

/** What sixtalk.yaml says; before zod has seen it. */
export type ConfigText = Record<string, unknown>;

export interface NewPeer {
  identity: Identity;
  name: string;
  /** The domain's server: host, SixID port, IRP port; empty: the DNS tells. */
  directory: (PeerAddress & { irpPort: number }) | Record<string, never>;
  root: Certificate;
  /** Of the CA that issues for the domain, where that is another one. */
  furtherRoots?: readonly Certificate[];
  /** Announce loopback and private addresses too. */
  nonGlobal: boolean;
}

/** The standard ports where they are free, else others: several nodes can live on one machine. Stores the domain's root, too. */
export async function newPeerConfig(home: Home, peer: NewPeer): Promise<ConfigText> {
  const roots = [peer.root, ...(peer.furtherRoots ?? [])];
  const anchor = join("anchors", `${identityDomain(peer.identity)}.pem`);
  writeDurably(join(home.directory, anchor), roots.map(({ der }) => derToPem(der, "CERTIFICATE")).join(""), 0o644);
  const everywhere = await anyAddress();
  const loopback = "127.0.0.1";
  return {
    identity: peer.identity,
    name: peer.name,
    listen: { host: everywhere, port: await freePort(everywhere, 4605) },
    ...(peer.nonGlobal ? { announce: { allowNonGlobal: true } } : {}),
    directory: { ...peer.directory, anchor },
    local: {
      host: loopback,
      smtpsPort: await freePort(loopback, 1465),
      submissionPort: await freePort(loopback, 1587),
      ftpPort: await freePort(loopback, 2121),
      sipPort: await freePort(loopback, 5062),
      sipsPort: await freePort(loopback, 5063),
    },
  };
}

/** All addresses of this machine, of both families if it has IPv6. */
export async function anyAddress(): Promise<string> {
  return (await canListen("::")) ? "::" : "0.0.0.0";
}

/** Adds a part to sixtalk.yaml, or makes the file. @throws SuiteError as `joinedConfig` */
export function writeConfig(home: Home, parts: Record<string, ConfigText>): void {
  writeDurably(home.config, joinedConfig(home, parts));
}

/**
 * What sixtalk.yaml says with other parts beside its own; writes nothing.
 * @throws SuiteError conflict when a part is there; config-invalid when the whole is not valid
 */
export function joinedConfig(home: Home, parts: Record<string, ConfigText>): string {
  const there = existsSync(home.config) ? (parse(readFileSync(home.config, "utf8")) as ConfigText) : {};
  const taken = Object.keys(parts).find((part) => there[part] !== undefined);
  if (taken !== undefined)
    throw new SuiteError("conflict", "this home is set up already", {
      fault: "local",
      details: { home: home.directory, part: taken },
    });
  const text = stringify({ ...there, ...parts });
  parseConfig(text, home.config);
  return `# SixTalk: see config/sixtalk.yaml for all settings; "sixtalk config check" tells what is wrong.\n${text}`;
}
