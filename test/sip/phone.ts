import { createSocket } from "node:dgram";
import { once } from "node:events";
import { connect, type Socket } from "node:net";
import {
  type Framed,
  parseDatagram,
  type SipMessage,
  type SipRequest,
  StreamFramer,
  value,
} from "../../src/sip/grammar.ts";
import { responseTo, serialise } from "../../src/sip/message.ts";

/** One of the owner's SIP programs, as a test drives it: real sockets, and nothing happens by itself. */
export interface Phone extends Disposable {
  readonly transport: "UDP" | "TCP";
  readonly port: number;
  /** Resolves when the other side closed the stream; over UDP never. */
  readonly closed: Promise<void>;
  send(bytes: Buffer | string): void;
  /** The next message, ping or refusal that came. */
  framed(): Promise<Framed>;
  /** The next message. */
  next(): Promise<SipMessage>;
  /** Sends a request and gives the next response. */
  ask(request: SipRequest): Promise<SipMessage & { kind: "response" }>;
  answer(request: SipMessage, status: number): void;
  /** Raw octets so far. */
  readonly received: () => Buffer;
}

export async function startPhone(transport: "UDP" | "TCP", at: { host: string; port: number }): Promise<Phone> {
  const queue: Framed[] = [];
  const raw: Buffer[] = [];
  let waiting: ((framed: Framed) => void) | undefined;
  const take = (framed: Framed) => {
    if (waiting === undefined) return void queue.push(framed);
    const found = waiting;
    waiting = undefined;
    found(framed);
  };
  const framer = new StreamFramer();
  const gone = Promise.withResolvers<void>();
  let tcp: Socket | undefined;
  const udp = createSocket("udp4");
  let port: number;
  if (transport === "TCP") {
    tcp = connect(at.port, at.host);
    tcp.on("data", (chunk: Buffer) => {
      raw.push(chunk);
      for (const one of framer.push(chunk)) take(one);
    });
    tcp.setNoDelay(true);
    tcp.on("error", () => undefined);
    tcp.once("close", () => gone.resolve());
    await once(tcp, "connect");
    port = tcp.localPort ?? 0;
    udp.close();
  } else {
    udp.on("message", (bytes) => {
      raw.push(bytes);
      take(parseDatagram(bytes));
    });
    await new Promise<void>((bound) => udp.bind(0, "127.0.0.1", bound));
    port = udp.address().port;
  }
  const send = (bytes: Buffer | string) =>
    transport === "TCP" ? void tcp?.write(bytes) : udp.send(Buffer.from(bytes as string), at.port, at.host);
  const framed = (): Promise<Framed> => {
    const known = queue.shift();
    return known === undefined ? new Promise((found) => (waiting = found)) : Promise.resolve(known);
  };
  const next = async () => {
    const one = await framed();
    if (one.kind !== "message") throw new Error(`not a message: ${JSON.stringify(one)}`);
    return one.message;
  };
  return {
    transport,
    port,
    closed: gone.promise,
    send,
    framed,
    next,
    ask: async (request) => {
      send(serialise(request));
      const response = await next();
      if (response.kind !== "response") throw new Error("a request came");
      const cseq = value(request.headers, "cseq");
      if (value(response.headers, "cseq") !== cseq)
        throw new Error(`the answer to ${value(response.headers, "cseq")} came`);
      return response;
    },
    answer: (request, status) => send(serialise(responseTo(request, status, "x", "phone"))),
    received: () => Buffer.concat(raw),
    [Symbol.dispose]: () => (transport === "TCP" ? void tcp?.destroy() : void udp.close()),
  };
}
