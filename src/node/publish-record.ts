import { httpsClient } from "../peertls-core/https-client.ts";
import type { Certificate } from "../pki/certificate.ts";
import { identityDomain } from "../pki/identity.ts";
import type { Log } from "../pki/log.ts";
import type { OwnIdentity } from "../sixid/announce.ts";
import { DirectoryClient } from "../sixid/client.ts";
import { pinnedName } from "../sixid/locate.ts";
import { anchorsOf } from "./anchors-of.ts";
import type { Home } from "./home.ts";
import type { OwnKeys } from "./keys.ts";
import { besideOthers } from "./own-record.ts";
import type { OwnServers } from "./own-servers.ts";
import { State } from "./state.ts";

export interface PublishOptions {
  home: Home;
  servers: OwnServers;
  /** Of the own domain. */
  roots: readonly Certificate[];
  /** Its AUTH key signs. */
  keys: OwnKeys;
  own: OwnIdentity;
  /** Fingerprints of devices that are to leave the record. */
  without?: readonly string[];
  clock: () => Date;
  log: Log;
}

/** Publishes the durable part of the own record beside the person's other devices, for a home whose node does not run. */
export async function publishRecord(o: PublishOptions, signal: AbortSignal): Promise<void> {
  const { home, servers, keys, own, without = [], clock, log } = o;
  const domain = identityDomain(own.identity);
  const anchors = anchorsOf(domain, o.roots);
  const http = httpsClient({
    addresses: () => servers.sixid(),
    ...{ serverName: domain, indicatedName: pinnedName(domain), anchors: () => anchors, clock },
    credentials: () => keys.auth,
  });
  const state = new State(home.state);
  try {
    const directory = new DirectoryClient({
      ...{ http, uuid: keys.uuid, signer: () => keys.auth, pins: state, clock, log },
      anchorsFor: (asked) => (asked === domain ? anchors : []),
      onEvent: () => undefined,
      onDomain: () => undefined,
    });
    const signer = keys.auth.certificate.fingerprint;
    await directory.publishIdentity(own, signal, (current) => besideOthers(own, { signer, without }, current));
  } finally {
    http.close();
    state.close();
  }
}
