import { type Identity, parseIdentity } from "../pki/identity.ts";
import { SuiteError } from "../pki/suite-error.ts";
import { type IdentityBody, MAX_IDENTITY_BYTES } from "../sixid/records.ts";
import { readSigned } from "../sixid/signed.ts";
import type { DirectoryStore, StoredUser } from "../sixid/store/store.ts";
import { verifyIdentity } from "../sixid/verify.ts";
import { zoneText } from "../sixid/zone.ts";
import { anchorsOf } from "./anchors-of.ts";
import type { DomainOptions } from "./domain.ts";
import { openKeys } from "./domain-ca.ts";
import { openStore } from "./domain-store.ts";

/** A person of the domain, as its owner sees him. */
export interface Person {
  identity: Identity;
  name: string;
  status: StoredUser["status"];
  roles: StoredUser["roles"];
  /** How many devices he has; 0: never enrolled. */
  devices: number;
}

const PAGE = 500;

/** In the order of their identities. @param match part of the identity or the name */
export async function listPeople(o: DomainOptions, match?: string): Promise<Person[]> {
  await using opened = await withStore(o);
  const found: Person[] = [];
  for await (const user of everybody(opened.store, match)) {
    const { identity, name, status, roles, uuid } = user;
    const record = await opened.store.record(uuid);
    found.push({ identity, name, status, roles, devices: record === undefined ? 0 : devicesIn(record.identity) });
  }
  return found;
}

/** Changes an account. A person who is removed loses all he had; his name is nobody else's for a year. @throws SuiteError not-found */
export async function changePerson(
  o: DomainOptions,
  user: string,
  next: Pick<Partial<StoredUser>, "name" | "status" | "roles">,
): Promise<Identity> {
  const identity = parseIdentity(user.includes("@") ? user : `${user}@${o.config.name}`);
  await using opened = await withStore(o);
  const known = await opened.store.user(identity);
  if (known === undefined)
    throw new SuiteError("not-found", "the domain has nobody of that name", { fault: "local", details: { identity } });
  await opened.store.setUser(known.uuid, next, o.clock().getTime());
  return identity;
}

/**
 * What the domain's zone is to tell: servers, CA, and the certificates of those who let everybody see them.
 * @returns also whose record does not hold now
 */
export async function domainZone(
  o: DomainOptions,
  server: { host: string; addresses: readonly string[] },
): Promise<{ text: string; leftOut: readonly Identity[] }> {
  const { config, home, clock } = o;
  const { root } = openKeys(home, config, clock());
  const anchors = anchorsOf(config.name, [root]);
  await using opened = await withStore(o);
  const people = [];
  const leftOut: Identity[] = [];
  for await (const { identity, uuid, status } of everybody(opened.store)) {
    if (status !== "active" || (await opened.store.visibility(uuid))?.certificates !== "public") continue;
    const record = await opened.store.record(uuid);
    if (record === undefined) continue;
    try {
      const verified = await verifyIdentity(record.identity, identity, { anchors, now: clock() });
      people.push({ identity, encryption: verified.encryption.map(({ certificate }) => certificate) });
    } catch (error) {
      if (!(error instanceof SuiteError)) throw error;
      leftOut.push(identity);
    }
  }
  const { name: domain, sixidPort, irpPort } = config;
  return { text: zoneText({ domain, ...server, sixidPort, irpPort, root, people }), leftOut };
}

function devicesIn(jws: string): number {
  return (readSigned(jws, "sixid-identity", MAX_IDENTITY_BYTES).body as IdentityBody).devices.length;
}

async function* everybody(store: DirectoryStore, match?: string): AsyncGenerator<StoredUser> {
  for (let after: Identity | undefined; ; ) {
    const page = await store.users({
      limit: PAGE,
      ...(after === undefined ? {} : { after }),
      ...(match === undefined ? {} : { match }),
    });
    yield* page;
    after = page.at(-1)?.identity;
    if (page.length < PAGE) return;
  }
}

async function withStore({ config, home }: DomainOptions): Promise<AsyncDisposable & { store: DirectoryStore }> {
  const store = await openStore(config, home);
  return { store, [Symbol.asyncDispose]: () => store.close() };
}
