import { once } from "node:events";
import { connect as connectTcp, type Socket } from "node:net";
import { connect as connectTls, type TLSSocket } from "node:tls";

/** An SMTP client that says exactly what a test says. */
export class Talk {
  socket: Socket | TLSSocket;
  #text = "";
  #ended = false;
  #more = Promise.withResolvers<void>();

  constructor(socket: Socket | TLSSocket) {
    this.socket = socket;
    this.#listen();
  }

  /** @param o.allowHalfOpen goes on sending when the server has ended its side */
  static async tcp(port: number, o: { allowHalfOpen?: boolean } = {}): Promise<Talk> {
    const socket = connectTcp({ port, host: "127.0.0.1", noDelay: true, allowHalfOpen: o.allowHalfOpen ?? false });
    const talk = new Talk(socket);
    await once(socket, "connect");
    return talk;
  }

  static async tls(port: number, ca: string): Promise<Talk> {
    const socket = connectTls({ port, host: "127.0.0.1", servername: "localhost", ca });
    const talk = new Talk(socket);
    await once(socket, "secureConnect");
    return talk;
  }

  /** Goes on inside TLS. */
  async startTls(ca: string): Promise<void> {
    this.socket.removeAllListeners("data");
    const secured = connectTls({ socket: this.socket, servername: "localhost", ca });
    this.socket = secured;
    this.#listen();
    await once(secured, "secureConnect");
  }

  write(bytes: string | Buffer): void {
    this.socket.write(bytes);
  }

  /** The next whole reply, all its lines; undefined when the connection ended before one. */
  async reply(): Promise<string | undefined> {
    for (;;) {
      const match = /^(?:\d{3}-[^\r\n]*\r\n)*\d{3}(?: [^\r\n]*)?\r\n/.exec(this.#text);
      if (match !== null) {
        this.#text = this.#text.slice(match[0].length);
        return match[0].trimEnd();
      }
      if (this.#ended) return undefined;
      await this.#more.promise;
    }
  }

  async say(line: string): Promise<string | undefined> {
    this.write(`${line}\r\n`);
    return this.reply();
  }

  /** EHLO, MAIL, RCPT, DATA. */
  async begin(from: string, to: string): Promise<string | undefined> {
    await this.say("EHLO test.example");
    await this.say(`MAIL FROM:<${from}>`);
    await this.say(`RCPT TO:<${to}>`);
    return this.say("DATA");
  }

  /** Whatever still comes, until the connection ends. */
  async rest(): Promise<string> {
    while (!this.#ended) await this.#more.promise;
    return this.#text;
  }

  #listen(): void {
    const wake = () => {
      this.#more.resolve();
      this.#more = Promise.withResolvers();
    };
    this.socket.on("data", (chunk: Buffer) => {
      this.#text += chunk.toString("latin1");
      wake();
    });
    this.socket.on("error", () => undefined);
    this.socket.on("close", () => {
      this.#ended = true;
      wake();
    });
  }
}
