import type { Readable } from "node:stream";
import type { PeerConnection, Protocol } from "../peertls-core/connection.ts";
import type { PeerTls } from "../peertls-core/peertls.ts";
import type { Log } from "../pki/log.ts";
import type { PeerRecord } from "../sixid/directory.ts";
import type { Envelope } from "./envelope.ts";
import type { Inbox } from "./inbox.ts";
import type { Outbox } from "./outbox.ts";
import type { Store } from "./store.ts";

/**
 * One attempt to hand one item to one recipient: the bytes as they go on the wire. A large file is several of these, one
 * after the other: its parts, and last the manifest.
 */
export interface Outgoing {
  envelope: Envelope;
  /**
   * Names these very bytes, 32 hex digits: the same in the next attempt if it sends the same bytes, so that a transfer that
   * was cut can go on; another when they were sealed anew.
   */
  transfer: string;
  /** Names the sealed object, of a file's several, and tells nothing of what is in it. */
  object: string;
  /** These bytes were, or may have been, sent before: some of them may be there. */
  again?: true;
  /** The digest that was signed, hex, where it is known: the peer's node has found the same, or has opened another seal. */
  digest?: string;
  /** Size of `open()`'s bytes. */
  size: number;
  /**
   * The bytes to send, from `offset`. Sealed: the CMS DER (`envelope.seal` = node); the same bytes at every call within
   * one attempt. Unsealed: the entity itself.
   */
  open(offset?: number): Readable;
  /**
   * Tells how far the transfer is. Call it with 0 once the peer has been reached, then as bytes go: an attempt without
   * progress for 10 s (messages) or 60 s is aborted; after the last byte of mail and files for 10 minutes.
   */
  progress(sentBytes: number): void;
}

/** What an endpoint gets from the node it is plugged into. */
export interface EndpointPort {
  peerTls: PeerTls;
  inbox: Inbox;
  outbox: Outbox;
  store: Store;
  log: Log;
  clock: () => Date;
  /** An admitted peer connected for this protocol: the node routes it here. */
  onPeer(protocol: Protocol, accept: (connection: PeerConnection) => void): void;
}

/** A protocol, plugged into the node. */
export interface Endpoint {
  readonly protocol: Protocol;
  start(port: EndpointPort): Promise<void>;
  /** Hands one thing to the peer. Throws SuiteError; `temporary` decides whether the outbox tries again. */
  deliver(item: Outgoing, to: PeerRecord, signal: AbortSignal): Promise<void>;
  /** Stop accepting, drain, close. */
  stop(): Promise<void>;
}
