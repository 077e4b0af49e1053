import type { Log } from "../../pki/log.ts";
import type { TrustAnchor } from "../../pki/path.ts";
import { asSuiteError, SuiteError } from "../../pki/suite-error.ts";
import { type IdentityBody, MAX_IDENTITY_BYTES } from "../records.ts";
import { readSigned } from "../signed.ts";
import type { DirectoryStore, StoredRecord, StoredRoot } from "../store/store.ts";
import { type VerifiedIdentity, verifyIdentity } from "../verify.ts";
import type { Account, Accounts } from "./accounts.ts";
import type { Caller } from "./caller.ts";

export interface RootsOptions {
  store: DirectoryStore;
  accounts: Accounts;
  anchors: () => readonly TrustAnchor[];
  clock: () => Date;
  log: Log;
}

/** As it is told. `until`: when it comes into force, Unix seconds. */
export interface HeldRoot {
  id: string;
  signer: string;
  jws: string;
  until: number;
}

const HELD_MS = 86_400_000;
const MOST_HELD = 4;

/**
 * New roots: identity objects that no device of the object before signed, of somebody who lost all of them, or of a thief
 * who got a certificate. They wait a day, in which the old devices are told and may object.
 */
export class Roots {
  readonly #o: RootsOptions;

  constructor(options: RootsOptions) {
    this.#o = options;
  }

  /** Whether a device of the current object signed the next one. */
  follows(next: VerifiedIdentity, current: string): boolean {
    return this.lists(current, next.body.signer);
  }

  lists(identity: string, fingerprint: string): boolean {
    const { devices } = readSigned(identity, "sixid-identity", MAX_IDENTITY_BYTES).body as unknown as IdentityBody;
    return devices.some(({ id }) => id === fingerprint);
  }

  store(uuid: string, { body, hash, jws, devices }: VerifiedIdentity): Promise<"stored" | "stale"> {
    const next = { seq: body.seq, hash, jws, aliases: body.aliasDigests };
    return this.#o.store.putIdentity(
      uuid,
      { ...next, devices: devices.map(({ fingerprint }) => fingerprint) },
      body.prev,
    );
  }

  /** @returns until when, Unix seconds @throws SuiteError conflict, forbidden */
  async hold({ uuid, identity }: Account, next: VerifiedIdentity, current: StoredRecord): Promise<number> {
    const { store, clock, log } = this.#o;
    if (next.body.prev !== current.hash || next.body.seq !== current.seq + 1)
      throw new SuiteError("conflict", "the object does not follow the current one", { fault: "peer" });
    const { hash: id, jws } = next;
    const { signer } = next.body;
    const received = clock().getTime();
    if (!(await store.putRoot({ id, uuid, signer, jws, received }, MOST_HELD)))
      throw new SuiteError("forbidden", "too many wait for this person's consent", { fault: "peer" });
    const held = (await store.roots(uuid)).find((one) => one.id === id)?.received ?? received;
    log.warn({ identity, signer }, "somebody's devices are to be replaced; held for a day");
    return untilOf(held);
  }

  async of(uuid: string): Promise<HeldRoot[]> {
    const held = await this.#o.store.roots(uuid);
    return held.map(({ id, signer, jws, received }) => ({ id, signer, jws, until: untilOf(received) }));
  }

  /** @throws SuiteError forbidden, conflict */
  async approve(by: Account, caller: Caller, id: string): Promise<{ seq: number }> {
    const root = await this.#judged(by, caller, id);
    const seq = await this.#take(root);
    this.#o.log.warn({ uuid: root.uuid, signer: root.signer, by: by.identity }, "a held root was approved");
    if (seq === undefined)
      throw new SuiteError("conflict", "the object does not follow the current one any more", { fault: "peer" });
    return { seq };
  }

  /** @throws SuiteError forbidden */
  async refuse(by: Account, caller: Caller, id: string): Promise<void> {
    const root = await this.#judged(by, caller, id);
    await this.#o.store.removeRoot(root.id);
    this.#o.log.warn({ uuid: root.uuid, signer: root.signer, by: by.identity }, "a held root was refused");
  }

  async takeDue(): Promise<void> {
    const { store, clock, log } = this.#o;
    for (const root of await store.rootsUntil(clock().getTime() - HELD_MS)) {
      try {
        const seq = await this.#take(root);
        log.warn({ uuid: root.uuid, signer: root.signer, taken: seq !== undefined }, "a root was held long enough");
      } catch (error) {
        log.error({ uuid: root.uuid, error: asSuiteError(error) }, "a held root cannot be taken");
      }
    }
  }

  /** A root that the caller may decide about: of a person whose current object lists the calling device, or as administrator. */
  async #judged(by: Account, caller: Caller, id: string): Promise<StoredRoot> {
    const { store } = this.#o;
    const root = (await store.rootsUntil(Number.MAX_SAFE_INTEGER)).find((one) => one.id === id);
    const current = root === undefined ? undefined : await store.record(root.uuid);
    const listed =
      root?.uuid === by.uuid &&
      current !== undefined &&
      caller.kind === "person" &&
      caller.by === "sca" &&
      this.lists(current.identity, caller.fingerprint);
    if (root === undefined || !(listed || by.roles.includes("admin")))
      throw new SuiteError("forbidden", "no root that the caller decides about", { fault: "peer" });
    return root;
  }

  /** @returns undefined if something else came meanwhile, or it holds no more */
  async #take({ id, uuid, jws }: StoredRoot): Promise<number | undefined> {
    const { store, anchors, clock } = this.#o;
    const user = await store.userById(uuid);
    let seq: number | undefined;
    if (user?.status === "active") {
      try {
        const verified = await verifyIdentity(jws, user.identity, { anchors: anchors(), now: clock() });
        if ((await this.store(uuid, verified)) === "stored") seq = verified.body.seq;
      } catch (error) {
        if (!(error instanceof SuiteError) || error.code !== "record-rejected") throw error; // expired meanwhile
      }
    }
    await store.removeRoot(id);
    return seq;
  }
}

function untilOf(received: number): number {
  return Math.floor((received + HELD_MS) / 1000);
}
