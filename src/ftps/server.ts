import type { Inbox } from "../delivery/inbox.ts";
import type { Store } from "../delivery/store.ts";
import type { PeerConnection } from "../peertls-core/connection.ts";
import type { PeerTls } from "../peertls-core/peertls.ts";
import { type Identity, identityLocal } from "../pki/identity.ts";
import type { Log } from "../pki/log.ts";
import { peerChannel } from "./data-channel.ts";
import type { Dropbox } from "./dropbox.ts";
import { PeerTree } from "./peer-tree.ts";
import { REPLIES, reply } from "./reply.ts";
import { type Door, Session } from "./session.ts";

export interface PeerServerOptions {
  owner: Identity;
  peerTls: PeerTls;
  inbox: Inbox;
  store: Pick<Store, "opened">;
  dropbox: Dropbox;
  random: (length: number) => Buffer;
  clock: () => Date;
  log: Log;
  maxFileBytes: number;
}

/** What a peer meets: a session on an admitted connection. The certificate logs in, USER only says as whom. */
export function servePeer(connection: PeerConnection, o: PeerServerOptions): Session {
  const { certificate, fingerprint, identity } = connection;
  const certified = certificate.identities.map((one) => one.identity);
  const identities = certified.includes(identity) ? [identity, ...certified] : [identity];
  const door: Door = {
    kind: "peer",
    greeting: "SixTalk ready.",
    features: [],
    maxFileBytes: o.maxFileBytes,
    localAddress: connection.localAddress.host,
    user(session, name) {
      const wanted = name.normalize("NFC").toLowerCase();
      const person = identities.find((one) => one === wanted || identityLocal(one) === wanted);
      if (person === undefined) return session.refuseLogin();
      const { inbox, store, dropbox, owner, maxFileBytes, clock } = o;
      const peer = { identity: person, fingerprint, certificate };
      session.loggedIn(new PeerTree({ inbox, store, dropbox, owner, peer, maxFileBytes, clock }));
      return reply(232, "User logged in, authorized by security data exchange.");
    },
    pass: () => REPLIES.userFirst,
    announce: async () => peerChannel(o.peerTls, connection, o.random),
  };
  const log = o.log.child({ conn: connection.id, protocol: "ftps", peer: identity });
  return new Session(connection.stream, { door, secured: true, log, clock: o.clock });
}
