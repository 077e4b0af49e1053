import type { Endpoint, EndpointPort, Outgoing } from "../delivery/endpoint.ts";
import type { ItemId } from "../delivery/envelope.ts";
import type { OwnerAccess } from "../delivery/owner-access.ts";
import type { PeerAddress } from "../peertls-core/connection.ts";
import type { LocalTls } from "../peertls-core/loopback.ts";
import { type Identity, identityDomain } from "../pki/identity.ts";
import type { Directory, PeerRecord } from "../sixid/directory.ts";
import { MailClient } from "./client.ts";
import { composeMail, composeText } from "./compose.ts";
import { LocalMail } from "./local.ts";
import { PeerMail } from "./server.ts";

export interface SmtpSettings {
  owner: Identity;
  /** Full name for From. */
  name: string;
  access: OwnerAccess;
  directory: Pick<Directory, "lookup">;
  /** Where the owner's mail programs connect; port 0 lets the system choose. */
  local: { host: string; smtpsPort: number; submissionPort: number; tls: LocalTls };
  random: (length: number) => Buffer;
}

/** Mail over SMTP (RFC 5321): sealed from node to node, and submitted by the owner's own mail programs. */
export class SmtpEndpoint implements Endpoint {
  readonly protocol = "smtp";
  readonly #settings: SmtpSettings;
  #running: { port: EndpointPort; client: MailClient; peers: PeerMail; local: LocalMail } | undefined;

  constructor(settings: SmtpSettings) {
    this.#settings = settings;
  }

  /** The bound local ports, after start. */
  get addresses(): { smtps: PeerAddress; submission: PeerAddress } | undefined {
    return this.#running?.local.addresses;
  }

  async start(port: EndpointPort): Promise<void> {
    const { owner, access, directory, local, random } = this.#settings;
    const { clock, log, inbox, outbox, peerTls } = port;
    const mail = new LocalMail({
      ...{ owner, access, directory, local, random, clock, log },
      accept: (draft) => outbox.accept(draft),
    });
    const peers = new PeerMail({ owner, inbox, clock, log });
    this.#running = { port, client: new MailClient({ peerTls, name: identityDomain(owner) }), peers, local: mail };
    await mail.start();
    port.onPeer("smtp", (connection) => peers.accept(connection));
  }

  /** Composes a text mail of the owner's and makes it durable. */
  async send(o: { to: readonly Identity[]; subject: string; text: string }): Promise<ItemId> {
    const { outbox, clock } = this.#started().port;
    const { owner, name, random } = this.#settings;
    const { head, body } = composeText({ owner, name, ...o });
    const { copies, messageId, title } = composeMail(head, { owner, to: o.to, now: clock(), random });
    const [copy] = copies; // To names everybody
    return outbox.accept({
      kind: "mail",
      from: owner,
      to: o.to,
      messageId,
      entity: Buffer.concat([copy?.payloadHead ?? Buffer.alloc(0), body]),
      outerHeader: copy?.outerHeader ?? "",
      seal: "node",
      title,
    });
  }

  deliver(item: Outgoing, to: PeerRecord, signal: AbortSignal): Promise<void> {
    return this.#started().client.deliver(item, to, signal);
  }

  async stop(): Promise<void> {
    const running = this.#running;
    if (running === undefined) return;
    running.client.stop();
    await Promise.all([running.peers.stop(), running.local.stop()]);
  }

  #started() {
    if (this.#running === undefined) throw new Error("the endpoint is not started");
    return this.#running;
  }
}
