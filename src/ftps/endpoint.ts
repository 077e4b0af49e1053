import type { Endpoint, EndpointPort, Outgoing } from "../delivery/endpoint.ts";
import type { ItemId } from "../delivery/envelope.ts";
import type { OwnerAccess } from "../delivery/owner-access.ts";
import type { PeerAddress, PeerConnection } from "../peertls-core/connection.ts";
import { type LocalListener, type LocalSocket, type LocalTls, listenLocal } from "../peertls-core/loopback.ts";
import { type Identity, identityDomain } from "../pki/identity.ts";
import type { Directory, PeerRecord } from "../sixid/directory.ts";
import { serializeHead } from "../smime/entity.ts";
import { fileHead, safeFileName } from "../smime/file-name.ts";
import { openDropbox } from "./dropbox.ts";
import { LoginGuard, serveLocal } from "./local.ts";
import { OutgoingFiles } from "./outgoing-files.ts";
import { OwnerTree } from "./owner-tree.ts";
import { REPLIES } from "./reply.ts";
import { FileSender } from "./send.ts";
import { servePeer } from "./server.ts";
import type { Session } from "./session.ts";

export interface FtpsSettings {
  owner: Identity;
  access: OwnerAccess;
  directory: Pick<Directory, "lookup">;
  /** Where the owner's FTP programs connect; port 0 lets the system choose. */
  local: { host: string; ftpPort: number; tls: LocalTls };
  random: (length: number) => Buffer;
}

export interface FileToSend {
  to: readonly Identity[];
  name: string;
  /** Stands in the signed head; left out if it is not known before the end. */
  size?: number;
  modified?: Date;
  /** The file's bytes. */
  source: AsyncIterable<Uint8Array>;
}

/** The largest file (ftps.md §2.8). */
const MAX_FILE_BYTES = 100 * 1024 ** 3;
const MAX_SESSIONS = 256;
/** How long transfers that are under way may take at a stop. */
const DRAIN_MS = 5_000;

/** Files over FTP: sealed from node to node, and for the owner's own FTP programs. */
export class FtpsEndpoint implements Endpoint {
  readonly protocol = "ftps";
  readonly #settings: FtpsSettings;
  readonly #sessions = new Set<Session>();
  #port: EndpointPort | undefined;
  #sender: FileSender | undefined;
  #listener: LocalListener | undefined;
  #stopping = false;

  constructor(settings: FtpsSettings) {
    this.#settings = settings;
  }

  /** The bound local port. */
  get addresses(): { ftp: PeerAddress } | undefined {
    return this.#listener === undefined ? undefined : { ftp: this.#listener.address };
  }

  async start(port: EndpointPort): Promise<void> {
    this.#port = port;
    const { owner, access, directory, local, random } = this.#settings;
    const { peerTls, inbox, outbox, store, clock, log } = port;
    this.#sender = new FileSender(peerTls);
    const dropbox = await openDropbox({ directory: store.unfinished, clock });
    const maxFileBytes = MAX_FILE_BYTES;
    const peer = { owner, peerTls, inbox, store, dropbox, random, clock, log, maxFileBytes };
    port.onPeer("ftps", (connection: PeerConnection) => this.#serve(connection, () => servePeer(connection, peer)));

    const guard = new LoginGuard(() => performance.now());
    const outgoing = new OutgoingFiles(store, outbox);
    const send = (to: Identity, name: string, source: AsyncIterable<Uint8Array>) =>
      this.send({ to: [to], name, source });
    const tree = () => new OwnerTree({ store, outgoing, directory, send, maxFileBytes });
    const own = { access, tls: local.tls, guard, tree, clock, log, maxFileBytes };
    this.#listener = await listenLocal({ host: local.host, port: local.ftpPort }, (socket: LocalSocket) =>
      this.#serve(socket, () => serveLocal(socket, own)),
    );
  }

  /** Makes a file durable in the outbox and sends it on its way. */
  async send({ to, name, size, modified, source }: FileToSend): Promise<ItemId> {
    const { outbox, clock } = this.#started();
    const { owner, random } = this.#settings;
    const messageId = `${random(16).toString("hex")}@${identityDomain(owner)}`;
    const fileName = safeFileName(name);
    const head = fileHead({
      from: owner,
      to,
      date: clock(),
      messageId,
      name: fileName,
      mediaType: "application/octet-stream",
      ...(size === undefined ? {} : { size }),
      ...(modified === undefined ? {} : { modified }),
    });
    const entity = entityOf(serializeHead(head), source);
    return outbox.accept({ kind: "file", from: owner, to, messageId, entity, seal: "node", title: fileName, fileName });
  }

  deliver(item: Outgoing, to: PeerRecord, signal: AbortSignal): Promise<void> {
    this.#started();
    return (this.#sender as FileSender).deliver(item, to, signal);
  }

  async stop(): Promise<void> {
    this.#stopping = true;
    this.#sender?.stop();
    const sessions = [...this.#sessions];
    for (const session of sessions) if (session.transferring === undefined) session.close(REPLIES.stopping);
    let timer: NodeJS.Timeout | undefined;
    const late = new Promise<void>((resolve) => {
      timer = setTimeout(resolve, DRAIN_MS);
    });
    await Promise.race([Promise.all(sessions.map((session) => session.drained())), late]);
    clearTimeout(timer);
    for (const session of sessions) session.control.destroy();
    await this.#listener?.close();
    await Promise.all(sessions.map((session) => session.ended));
  }

  #serve(from: { destroy(): void }, serve: () => Session): void {
    if (this.#stopping || this.#sessions.size >= MAX_SESSIONS) {
      from.destroy();
      return;
    }
    const session = serve();
    this.#sessions.add(session);
    void session.ended.then(() => this.#sessions.delete(session));
  }

  #started(): EndpointPort {
    if (this.#port === undefined) throw new Error("the endpoint is not started");
    return this.#port;
  }
}

async function* entityOf(head: Buffer, body: AsyncIterable<Uint8Array>): AsyncGenerator<Uint8Array, void, undefined> {
  yield head;
  yield* body;
}
