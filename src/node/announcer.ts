import type { Identity } from "../pki/identity.ts";
import type { Log } from "../pki/log.ts";
import type { OwnIdentity } from "../sixid/announce.ts";
import type { DirectoryClient, KnownDomain } from "../sixid/client.ts";
import type { DeviceAddress, PeerRecord } from "../sixid/directory.ts";
import { besideOthers } from "./own-record.ts";
import { pause } from "./pause.ts";

export interface AnnouncerOptions {
  identity: Identity;
  directory: DirectoryClient;
  /** The own record as it should stand. */
  own: () => OwnIdentity;
  /** Fingerprint of this device. */
  signer: () => string;
  /** The own record as the directory has it; called before another is published in its place. */
  onOwnRecord: (told: PeerRecord) => void;
  /** Where this node can be dialled now. */
  addresses: () => DeviceAddress[];
  /** The anchors that the own directory tells for the domains it knows. */
  onDomains: (domains: readonly KnownDomain[]) => void;
  onState: (state: "available" | "unavailable", error?: unknown) => void;
  log: Log;
}

/** Addresses that change together are announced together. */
const SETTLE_MS = 250;
const REANNOUNCE_MS = 3_300_000;
const DIRECTORY_RETRY_MS = 5_000;
/** A connection that was kept may be dead, and would not tell. */
const ROUND_MS = 30_000;

/** Keeps the directory told and asked: own addresses, own record, the other domains' anchors. */
export class Announcer {
  readonly #o: AnnouncerOptions;
  #state: "available" | "unavailable" | "unknown" = "unknown";
  #announced = "";
  #announcedAt = Number.NEGATIVE_INFINITY;
  #recordDue = true;
  #nudge = new AbortController();
  #settling: NodeJS.Timeout | undefined;

  constructor(options: AnnouncerOptions) {
    this.#o = options;
  }

  /** What the directory was told last. */
  get announced(): readonly DeviceAddress[] {
    return this.#announced === "" ? [] : (JSON.parse(this.#announced) as DeviceAddress[]);
  }

  get state(): "available" | "unavailable" | "unknown" {
    return this.#state;
  }

  /** The own certificates changed: the record has to follow now. */
  recordChanged(): void {
    this.#recordDue = true;
    this.#nudge.abort();
  }

  /** This machine has other addresses than before. */
  addressesChanged(): void {
    clearTimeout(this.#settling);
    this.#settling = setTimeout(() => this.#nudge.abort(), SETTLE_MS);
    this.#settling.unref();
  }

  /** A look-up found the directory away: it is asked until it answers, so that what waits for it goes on at once. */
  missed(error: unknown): void {
    if (this.#state !== "available") return;
    this.#is("unavailable", error);
    this.#nudge.abort();
  }

  /** Runs until `signal` aborts. */
  async run(signal: AbortSignal): Promise<void> {
    while (!signal.aborted) {
      this.#nudge = new AbortController();
      const nudged = AbortSignal.any([signal, this.#nudge.signal]);
      try {
        await this.#round(AbortSignal.any([signal, AbortSignal.timeout(ROUND_MS)]));
        await pause(Math.max(0, this.#announcedAt + REANNOUNCE_MS - performance.now()), nudged);
      } catch (error) {
        if (signal.aborted) return;
        this.#is("unavailable", error);
        await pause(DIRECTORY_RETRY_MS, nudged);
      }
    }
  }

  async #round(signal: AbortSignal): Promise<void> {
    const { directory, log } = this.#o;
    if (this.#recordDue) {
      this.#recordDue = false;
      try {
        await this.#publishRecord(signal);
      } catch (error) {
        this.#recordDue = true;
        throw error;
      }
    }
    const addresses = this.#o.addresses();
    const text = JSON.stringify(addresses);
    const now = performance.now();
    const due = this.#state !== "available" || now - this.#announcedAt >= REANNOUNCE_MS;
    if (text === this.#announced && !due) return;
    await directory.publishAddresses(addresses, signal);
    if (due) this.#o.onDomains(await directory.domains(signal));
    this.#announced = text;
    this.#announcedAt = now;
    log.info({ addresses: addresses.map(({ host, port }) => `${host} ${port}`) }, "own addresses announced");
    this.#is("available");
  }

  /** Looks before it writes: a restart with the same certificates costs the directory one read. */
  async #publishRecord(signal: AbortSignal): Promise<void> {
    const { directory, identity, log } = this.#o;
    const told = await directory.lookup(identity, { fresh: true }, signal);
    this.#o.onOwnRecord(told);
    const own = this.#o.own();
    const same =
      !told.stale &&
      told.name === own.name &&
      own.devices.every(({ certificate }) =>
        told.devices.some((one) => one.certificate.sha256 === certificate.sha256),
      ) &&
      told.encryption.map((one) => one.sha256).join() === own.encryption.map((one) => one.sha256).join();
    if (same) return;
    await directory.publishIdentity(own, signal, (current) => besideOthers(own, { signer: this.#o.signer() }, current));
    log.info({ identity }, "own record published");
  }

  #is(state: "available" | "unavailable", error?: unknown): void {
    if (this.#state === state) return;
    this.#state = state;
    this.#o.onState(state, error);
  }
}
