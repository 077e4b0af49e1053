import { once } from "node:events";
import { connect as connectTcp, type Socket } from "node:net";
import { Duplex } from "node:stream";
import { setImmediate as turn } from "node:timers/promises";
import { type ConnectionOptions, connect as connectTls, type TLSSocket } from "node:tls";
import { derToPem } from "../../src/pki/pem.ts";
import { within } from "../delivery/party.ts";
import type { TestCredentials } from "../support/pki.ts";
import { bytesOf } from "../support/smime.ts";

export interface Answer {
  code: number;
  text: string;
}

/** A control connection in a test's hands: says lines, and waits for replies in their order. */
export class Talk {
  stream: Duplex;
  readonly raw: Socket | undefined;
  #text = "";
  #waiting: (() => void) | undefined;
  #ended = false;

  constructor(stream: Duplex, raw?: Socket) {
    this.stream = stream;
    this.raw = raw;
    this.#listen(stream);
  }

  /** A control connection to the owner's door, greeted. */
  static async local(port: number): Promise<Talk> {
    const raw = connectTcp({ host: "127.0.0.1", port });
    const talk = new Talk(raw, raw);
    await talk.answer(220);
    return talk;
  }

  /** … with TLS, logged in, data protected, TYPE I. */
  static async owner(port: number, password: string): Promise<Talk> {
    const talk = await Talk.local(port);
    await talk.secure();
    await talk.ask("USER alice", 331);
    await talk.ask(`PASS ${password}`, 230);
    await talk.ask("PBSZ 0", 200);
    await talk.ask("PROT P", 200);
    await talk.ask("TYPE I", 200);
    return talk;
  }

  async secure(): Promise<void> {
    await this.ask("AUTH TLS", 234);
    this.stream.removeAllListeners("data");
    const secured = connectTls({ socket: this.raw as Socket, rejectUnauthorized: false, servername: "localhost" });
    await once(secured, "secureConnect");
    this.stream = secured;
    this.#listen(secured);
  }

  say(line: string): void {
    this.stream.write(`${line}\r\n`);
  }

  async ask(line: string, code?: number): Promise<Answer> {
    this.say(line);
    return this.answer(code);
  }

  /** The next reply; fails if it has another code. */
  async answer(code?: number): Promise<Answer> {
    for (;;) {
      const match = /^(\d{3})(?: (.*)|-(?:[\s\S]*?)\r\n\1 .*)\r\n/.exec(this.#text);
      if (match !== null) {
        this.#text = this.#text.slice(match[0].length);
        const answer = { code: Number(match[1]), text: match[0].slice(4).trimEnd() };
        if (code !== undefined && answer.code !== code)
          throw new Error(`${code} expected: ${answer.code} ${answer.text}`);
        return answer;
      }
      if (this.#ended) throw new Error(`the connection ended behind "${this.#text.slice(0, 200)}"`);
      await within(new Promise<void>((resolve) => (this.#waiting = resolve)), "a reply");
    }
  }

  /** Resolves with what came before the end. */
  async end(): Promise<string> {
    while (!this.#ended) await within(new Promise<void>((resolve) => (this.#waiting = resolve)), "the end");
    return this.#text;
  }

  /** Announces a data connection and gives its port. */
  async passive(): Promise<number> {
    const { text } = await this.ask("EPSV", 229);
    return Number(/\(\|\|\|(\d+)\|\)/.exec(text)?.[1]);
  }

  async data(): Promise<RawTls> {
    return RawTls.open({ host: "127.0.0.1", port: await this.passive() }, { servername: "localhost" });
  }

  #listen(stream: Duplex): void {
    stream.on("data", (chunk: Buffer) => {
      this.#text += chunk.toString("utf8");
      this.#waiting?.();
    });
    stream.on("error", () => undefined);
    stream.on("close", () => {
      this.#ended = true;
      this.#waiting?.();
    });
  }
}

/** A listing, or a file, over a data connection of its own. */
export async function fetched(talk: Talk, command: string): Promise<string> {
  const data = await talk.data();
  await talk.ask(command, 150);
  const bytes = await bytesOf(data.tls);
  await talk.answer(226);
  return bytes.toString();
}

/** Uploads by a data connection of its own. */
export async function put(talk: Talk, path: string, bytes: Buffer | string): Promise<void> {
  const data = await talk.data();
  await talk.ask(`STOR ${path}`, 150);
  data.tls.end(bytes);
  await talk.answer(226);
}

/** TLS by a client that can also end the TCP connection below it without a word. */
export class RawTls {
  readonly raw: Socket;
  readonly tls: TLSSocket;
  /** Whether a FIN follows the close_notify. */
  fin = true;

  private constructor(raw: Socket, tls: TLSSocket) {
    this.raw = raw;
    this.tls = tls;
    tls.on("error", () => undefined);
    raw.on("error", () => undefined);
  }

  /** @param pieces bytes a write */
  static async open(
    at: { host: string; port: number },
    options: ConnectionOptions,
    pieces = Number.POSITIVE_INFINITY,
  ): Promise<RawTls> {
    const raw = connectTcp({ ...at, allowHalfOpen: true });
    await within(once(raw, "connect"), "a data connection");
    raw.setNoDelay(true);
    const below = new Duplex({
      allowHalfOpen: true,
      read() {},
      write(chunk: Buffer, _encoding, done) {
        void written(raw, chunk, pieces).then(() => done());
      },
      final(done) {
        if (one.fin) raw.end();
        done();
      },
      destroy(error, done) {
        raw.destroy();
        done(error);
      },
    });
    raw.on("data", (chunk: Buffer) => below.push(chunk));
    raw.on("end", () => below.push(null));
    const one: RawTls = new RawTls(raw, connectTls({ socket: below, rejectUnauthorized: false, ...options }));
    await within(
      new Promise<void>((resolve, reject) => {
        one.tls.once("secureConnect", resolve);
        one.tls.once("error", reject);
        one.tls.once("close", () => reject(new Error("closed in the handshake")));
      }),
      "a data handshake",
    );
    return one;
  }

  /** With a person's certificate on a peer port, as `ftp-data` with this token. */
  static peerData(
    at: { host: string; port: number },
    token: string,
    as: TestCredentials,
    pieces?: number,
  ): Promise<RawTls> {
    return RawTls.open(at, peerOptions(token, as), pieces);
  }

  write(bytes: Buffer): Promise<void> {
    return within(new Promise((resolve) => this.tls.write(bytes, () => resolve())), "a write");
  }

  /** A FIN without close_notify. */
  cut(): void {
    this.raw.end();
  }

  reset(): void {
    this.raw.resetAndDestroy();
  }
}

async function written(raw: Socket, bytes: Buffer, pieces: number): Promise<void> {
  for (let from = 0; from < bytes.length; from += pieces) {
    await new Promise<void>((resolve) => raw.write(bytes.subarray(from, from + pieces), () => resolve()));
    if (pieces < bytes.length) await turn();
  }
}

export function peerOptions(token: string, as: TestCredentials): ConnectionOptions {
  return {
    key: as.privateKey.export({ type: "pkcs8", format: "pem" }) as string,
    cert: [as.certificate, ...as.chain].map(({ der }) => derToPem(der, "CERTIFICATE")).join(""),
    ALPNProtocols: ["ftp-data"],
    servername: `${token}.data`,
    minVersion: "TLSv1.3",
  };
}
