import type { Socket } from "node:net";
import type { TLSSocket } from "node:tls";
import { alertRecord, keyLogSecret } from "./alert.ts";

/** The traffic secret under which a refusal goes out, from the key log; kept until the verdict, then overwritten. */
export class RefusalSecret {
  readonly #socket: TLSSocket;
  readonly #listener: (line: Buffer) => void;
  #value: Buffer | undefined;

  constructor(socket: TLSSocket, side: "server" | "client") {
    // Server: its tickets are still unsent, so sequence number 0 is free. Client: likewise its whole second flight.
    const label = side === "server" ? "SERVER_TRAFFIC_SECRET_0" : "CLIENT_HANDSHAKE_TRAFFIC_SECRET";
    this.#socket = socket;
    this.#listener = (line) => {
      this.#value ??= keyLogSecret(line, label);
      line.fill(0);
    };
    socket.on("keylog", this.#listener);
  }

  forget(): void {
    this.#socket.off("keylog", this.#listener);
    this.#value?.fill(0);
    this.#value = undefined;
  }

  /**
   * Sends the alert and ends the connection. The alert goes to the raw socket and the TLS socket is destroyed in the same
   * tick: nothing that OpenSSL has ready (tickets on a server, our certificate on a client) leaves, before it or after.
   * @param alert undefined: just close
   */
  refuse(raw: Socket, alert: number | undefined): void {
    const secret = this.#value;
    const record =
      alert === undefined || secret === undefined
        ? undefined
        : alertRecord(this.#socket.getCipher().name, secret, alert);
    if (record !== undefined) raw.write(record);
    this.#socket.destroy();
    this.forget();
  }
}
