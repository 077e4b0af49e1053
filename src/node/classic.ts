import type { PeerAddress } from "../peertls-core/connection.ts";
import type { PeerTls } from "../peertls-core/peertls.ts";
import type { PeerConfig } from "./config.ts";

/** The bound classic ports, of those that are configured. */
export interface ClassicPorts {
  peerSips?: PeerAddress;
  peerSmtps?: PeerAddress;
}

/** @throws SuiteError config-invalid when a port is taken, or may not be opened */
export async function openClassic(peerTls: PeerTls, { listen, classic }: PeerConfig): Promise<ClassicPorts> {
  const { sips, smtps } = classic;
  const open = (port: number, protocol: "sip" | "smtp") => peerTls.listenClassic({ host: listen.host, port }, protocol);
  return {
    ...(sips === undefined ? {} : { peerSips: await open(sips, "sip") }),
    ...(smtps === undefined ? {} : { peerSmtps: await open(smtps, "smtp") }),
  };
}
