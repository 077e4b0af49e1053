import { firstDevice, wayTo } from "../delivery/devices.ts";
import type { Outgoing } from "../delivery/endpoint.ts";
import type { PeerTls } from "../peertls-core/peertls.ts";
import { SuiteError } from "../pki/suite-error.ts";
import type { PeerDevice, PeerRecord } from "../sixid/directory.ts";
import type { SipRequest, SipResponse } from "./grammar.ts";
import type { PeerFlow } from "./peer-flow.ts";
import { failureOf } from "./reply.ts";
import { sipUriOf } from "./uri.ts";

export interface MessageClientOptions {
  peerTls: PeerTls;
  /** An open flow to a device, whoever dialled it (RFC 5923; both ends are proven): the newest. */
  flowTo: (fingerprint: string) => PeerFlow | undefined;
  adopt: (connection: Awaited<ReturnType<PeerTls["dial"]>>) => PeerFlow;
  token: () => string;
  stillThereMs?: number;
}

/**
 * A flow that was open already has so long to show that the peer is still there: of the 10 s that delivery gives a
 * message without progress, what is left is for dialling.
 */
const STILL_THERE_MS = 5_000;

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
    const response =
      (await overOpenFlow(device, item, to, body, o, signal)) ?? (await overNewFlow(device, item, to, body, o, signal));
    if (response.status < 200 || response.status >= 300) throw failureOf(response.status);
    item.progress(item.size);
  });
}

/**
 * What was sent over a flow that turned out to be dead may have arrived: the receiver knows it again by its message id.
 * @returns undefined when there is no open flow, or none any more
 */
async function overOpenFlow(
  device: PeerDevice,
  item: Outgoing,
  to: PeerRecord,
  body: Buffer,
  o: MessageClientOptions,
  signal: AbortSignal,
): Promise<SipResponse | undefined> {
  const flow = o.flowTo(device.fingerprint);
  if (flow === undefined) return undefined;
  const stop = flow.probe(o.stillThereMs ?? STILL_THERE_MS, () => item.progress(0));
  try {
    const response = await flow.request(messageFor(flow, item, to, body, o), signal);
    if (response === undefined && flow.alive) throw unanswered();
    return response;
  } finally {
    stop();
  }
}

async function overNewFlow(
  device: PeerDevice,
  item: Outgoing,
  to: PeerRecord,
  body: Buffer,
  o: MessageClientOptions,
  signal: AbortSignal,
): Promise<SipResponse> {
  const { expected, routes } = wayTo(device, to);
  const connection = await o.peerTls.dial(expected, "sip", routes, signal);
  const flow = o.adopt(connection);
  flow.ping();
  await connection.confirmed;
  item.progress(0);
  const response = await flow.request(messageFor(flow, item, to, body, o), signal);
  if (response === undefined) throw unanswered();
  return response;
}

function messageFor(flow: PeerFlow, item: Outgoing, to: PeerRecord, body: Buffer, o: MessageClientOptions): SipRequest {
  return {
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
}

function unanswered(): SuiteError {
  return new SuiteError("unreachable", "the peer's node did not answer", { fault: "peer", temporary: true });
}

async function bodyOf(item: Outgoing): Promise<Buffer> {
  const parts: Buffer[] = [];
  for await (const part of item.open()) parts.push(part as Buffer);
  return Buffer.concat(parts);
}
