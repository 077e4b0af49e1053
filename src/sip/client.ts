import { firstDevice, wayTo } from "../delivery/devices.ts";
import type { Outgoing } from "../delivery/endpoint.ts";
import type { PeerTls } from "../peertls-core/peertls.ts";
import { SuiteError } from "../pki/suite-error.ts";
import type { PeerDevice, PeerRecord } from "../sixid/directory.ts";
import type { SipRequest } from "./grammar.ts";
import type { PeerFlow } from "./peer-flow.ts";
import { failureOf } from "./reply.ts";
import { sipUriOf } from "./uri.ts";

export interface MessageClientOptions {
  peerTls: PeerTls;
  /** An open flow to a device, whoever dialled it (RFC 5923; both ends are proven). */
  flowTo: (fingerprint: string) => PeerFlow | undefined;
  adopt: (connection: Awaited<ReturnType<PeerTls["dial"]>>) => PeerFlow;
  token: () => string;
}

/**
 * Hands one message to the first device that takes it.
 * @throws SuiteError as `PeerTls.dial`, and what the peer's answer means
 */
export async function sendMessage(
  item: Outgoing,
  to: PeerRecord,
  o: MessageClientOptions,
  signal: AbortSignal,
): Promise<void> {
  const body = await bodyOf(item);
  await firstDevice(to, signal, async (device) => {
    const flow = await reach(device, to, o, signal);
    item.progress(0);
    await hand(flow, item, to, body, o, signal);
    item.progress(item.size);
  });
}

async function reach(
  device: PeerDevice,
  to: PeerRecord,
  o: MessageClientOptions,
  signal: AbortSignal,
): Promise<PeerFlow> {
  const open = o.flowTo(device.fingerprint);
  if (open?.alive) return open;
  const { expected, routes } = wayTo(device, to);
  const connection = await o.peerTls.dial(expected, "sip", routes, signal);
  const flow = o.adopt(connection);
  flow.ping();
  await connection.confirmed;
  return flow;
}

async function hand(
  flow: PeerFlow,
  item: Outgoing,
  to: PeerRecord,
  body: Buffer,
  o: MessageClientOptions,
  signal: AbortSignal,
): Promise<void> {
  const request: SipRequest = {
    kind: "request",
    method: "MESSAGE",
    uri: sipUriOf(to.identity),
    headers: [
      { name: "via", value: `SIP/2.0/TLS ${flow.sentBy};branch=z9hG4bK${o.token()}` },
      { name: "max-forwards", value: "70" },
      { name: "from", value: `<${sipUriOf(item.envelope.from)}>;tag=${o.token()}` },
      { name: "to", value: `<${sipUriOf(to.identity)}>` },
      { name: "call-id", value: item.envelope.messageId },
      { name: "cseq", value: "1 MESSAGE" },
      { name: "content-type", value: "message/cpim" },
    ],
    body,
  };
  const response = await flow.request(request, signal);
  if (response === undefined)
    throw new SuiteError("unreachable", "the peer's node did not answer", { fault: "peer", temporary: true });
  if (response.status < 200 || response.status >= 300) throw failureOf(response.status);
}

async function bodyOf(item: Outgoing): Promise<Buffer> {
  const parts: Buffer[] = [];
  for await (const part of item.open()) parts.push(part as Buffer);
  return Buffer.concat(parts);
}
