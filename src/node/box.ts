import type { HttpsClient } from "../peertls-core/https-client.ts";
import type { Identity } from "../pki/identity.ts";
import type { Log } from "../pki/log.ts";
import { asSuiteError } from "../pki/suite-error.ts";
import type { DirectoryClient, KnownDomain } from "../sixid/client.ts";
import { type Boxed, RequestBox } from "../sixid/request-box.ts";
import type { PeerNode } from "./node.ts";
import { pause } from "./pause.ts";

export interface BoxOptions {
  node: PeerNode;
  directory: DirectoryClient;
  /** Kept connections to the own domain's server. */
  http: HttpsClient;
  httpTo: (domain: KnownDomain) => HttpsClient;
  /** Whether the owner wants to hear of strangers in this way. */
  wanted: () => boolean;
  clock: () => Date;
  log: Log;
}

const LOOK_MS = 180_000;

/** The request boxes in the directory: the owner's is looked into now and then, others' take his requests. */
export class Box {
  readonly #o: BoxOptions;
  readonly #box: RequestBox;
  #nudge = new AbortController();

  constructor(options: BoxOptions) {
    this.#o = options;
    const { node, directory, http, httpTo, clock } = options;
    this.#box = new RequestBox({
      identity: node.identity,
      http,
      directory,
      httpTo,
      anchorsFor: (domain) => node.anchorsFor(domain),
      clock,
    });
  }

  /** @throws SuiteError as `RequestBox.handIn` */
  handIn(to: Identity, request: string, signal: AbortSignal): Promise<void> {
    return this.#box.handIn(to, request, signal);
  }

  /** Has the box looked into now. */
  lookSoon(): void {
    this.#nudge.abort();
  }

  /** Runs until `signal` aborts. */
  async run(signal: AbortSignal): Promise<void> {
    while (!signal.aborted) {
      this.#nudge = new AbortController();
      try {
        if (this.#o.wanted()) await this.#look(signal);
      } catch (error) {
        if (signal.aborted) return;
        this.#o.log.info({ error: asSuiteError(error) }, "the request box could not be looked into");
      }
      await pause(LOOK_MS, AbortSignal.any([signal, this.#nudge.signal]));
    }
  }

  /** What is kept here, or will never be, is taken out there. */
  async #look(signal: AbortSignal): Promise<void> {
    for (const boxed of await this.#box.list(signal)) {
      if (await this.#done(boxed)) await this.#box.drop(boxed.id, signal);
    }
  }

  async #done(boxed: Boxed): Promise<boolean> {
    if ("request" in boxed) return (await this.#o.node.requests.takeBoxed(boxed.request)) !== "later";
    const { code, details } = boxed.refused;
    this.#o.log.warn({ ...details, code }, "what lies in the request box was refused");
    return code === "record-rejected" && !MAY_PASS.has(String(details["step"]));
  }
}

/** Steps of the verification that another day, or an anchor that is told later, may pass; what has expired goes by itself. */
const MAY_PASS: ReadonlySet<string> = new Set(["signer path", "issued in the future", "expired"]);
