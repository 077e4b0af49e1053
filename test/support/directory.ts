import { randomBytes } from "node:crypto";
import { fastify } from "fastify";
import type { PeerAddress } from "../../src/peertls-core/connection.ts";
import type { Credentials } from "../../src/peertls-core/credentials.ts";
import { type HttpsClient, httpsClient } from "../../src/peertls-core/https-client.ts";
import { httpsService } from "../../src/peertls-core/service.ts";
import type { Certificate } from "../../src/pki/certificate.ts";
import type { Identity } from "../../src/pki/identity.ts";
import { type Log, silentLog } from "../../src/pki/log.ts";
import type { TrustAnchor } from "../../src/pki/path.ts";
import { makeIdentity, type OwnIdentity } from "../../src/sixid/announce.ts";
import { payloadHash } from "../../src/sixid/canonical.ts";
import { makeDomainDocument } from "../../src/sixid/domain-document.ts";
import type { Locator } from "../../src/sixid/locate.ts";
import type { Pin, PinStore } from "../../src/sixid/pins.ts";
import { Accounts } from "../../src/sixid/server/accounts.ts";
import { Federation } from "../../src/sixid/server/federation.ts";
import { routes } from "../../src/sixid/server/http.ts";
import { Recursion } from "../../src/sixid/server/recursion.ts";
import { DirectoryService } from "../../src/sixid/server/service.ts";
import { openSqliteStore } from "../../src/sixid/store/sqlite.ts";
import type { DirectoryStore } from "../../src/sixid/store/store.ts";
import type { TestCredentials, TestDomain, TestPerson } from "./pki.ts";

export interface TestDirectory extends AsyncDisposable {
  readonly address: PeerAddress;
  readonly accounts: Accounts;
  readonly store: DirectoryStore;
  readonly service: DirectoryService;
  /** Makes an account. @returns its uuid */
  account(person: Identity): Promise<string>;
}

/** The real directory server of a domain, in memory, on a port that the system chooses. */
export async function startDirectory(
  domain: TestDomain,
  o: {
    log?: Log;
    clock?: () => Date;
    /** One that several servers share; absent: one of its own, in memory. */
    store?: DirectoryStore;
    /** Other domains, with their servers' addresses. */
    others?: readonly { domain: TestDomain; at: () => PeerAddress }[];
    /** Finds other domains: federation is open then, with servers that these certify. */
    locator?: Pick<Locator, "servers">;
    webAnchors?: readonly TrustAnchor[];
    mayAsk?: (host: string) => boolean;
    credentialsFor?: (serverName: string) => Credentials | undefined;
  } = {},
): Promise<TestDirectory> {
  const { log = silentLog, clock = () => new Date(), others = [] } = o;
  const store = o.store ?? openSqliteStore(":memory:");
  const accounts = new Accounts({ store, domain: domain.domain, clock, random: randomBytes });
  const credentials = domain.domainServer();
  const { locator, webAnchors = [], mayAsk = () => true, credentialsFor } = o;
  const federation = new Federation({
    domain: domain.domain,
    mode: locator === undefined ? "listed" : "open",
    configured: () => known,
    locator: locator ?? { servers: () => Promise.reject(new Error("nobody looks")) },
    webAnchors: () => webAnchors,
    mayAsk,
    connect: (to) => httpsClient({ ...to, serverName: to.domain, credentials: () => withoutRoot(credentials), clock }),
    clock,
    log,
  });
  const known = others.map(({ domain: other, at }) => ({
    domain: other.domain,
    get at() {
      return at();
    },
    anchors: [other.anchor],
  }));
  const https = httpsService({
    credentials,
    ...(credentialsFor === undefined ? {} : { credentialsFor }),
    clientAnchors: () => [domain.anchor, ...federation.known().flatMap(({ anchors }) => anchors)],
    clock,
    log,
    host: "::1",
    port: 0,
  });
  const app = fastify({
    serverFactory: (handler) => https.serverFactory(handler),
    bodyLimit: 131_072,
    routerOptions: { maxParamLength: 320 },
  });
  const service = new DirectoryService({
    domain: domain.domain,
    store,
    accounts,
    recursion: new Recursion({ domain: domain.domain, clientFor: (name) => federation.clientFor(name), log }),
    federation,
    anchors: () => [domain.anchor],
    document: () =>
      makeDomainDocument(
        {
          ...{ domain: domain.domain, anchors: [domain.anchor.certificate], cas: [], crl: [], ocsp: [] },
          federation: "open",
        },
        withoutRoot(credentials),
        clock(),
      ),
    clock,
    log,
  });
  await app.register(routes, {
    service,
    accounts,
    https,
    federation,
    identityOf: async (uuid: string) => (await store.userById(uuid))?.identity,
    log,
  });
  await app.ready();
  const address = await https.listen();
  return {
    address,
    accounts,
    store,
    service,
    account: async (person) => {
      await accounts.invite(person, person);
      return (await accounts.find(person))?.uuid ?? "";
    },
    [Symbol.asyncDispose]: async () => {
      federation.close();
      service.close();
      await https.close();
      await app.close();
      await store.close();
    },
  };
}

function withoutRoot<T extends { chain: readonly Certificate[] }>(credentials: T): T {
  return { ...credentials, chain: credentials.chain.slice(0, 1) };
}

/** What a lying directory says: `status`, and an object as JSON or a text as it is. */
export type Answer = { status?: number; body: object | string };

/** A server with the domain's good certificate that says whatever the test wants. */
export async function startLiar(
  domain: TestDomain,
  answer: (method: string, path: string) => Answer | Promise<Answer>,
  credentials: Credentials = domain.domainServer(),
): Promise<AsyncDisposable & { readonly address: PeerAddress }> {
  const https = httpsService({
    credentials,
    clientAnchors: () => [domain.anchor],
    clock: () => new Date(),
    log: silentLog,
    host: "::1",
    port: 0,
  });
  https.serverFactory((request, response) => {
    request.resume();
    void Promise.resolve(answer(request.method ?? "", request.url ?? "")).then(({ status = 200, body }) => {
      response.writeHead(status, { "content-type": "application/json" });
      response.end(typeof body === "string" ? body : JSON.stringify(body));
    });
  });
  const address = await https.listen();
  return { address, [Symbol.asyncDispose]: () => https.close() };
}

export function httpTo(domain: TestDomain, address: PeerAddress, as?: TestCredentials): HttpsClient {
  return httpsClient({
    addresses: () => [address],
    serverName: domain.domain,
    anchors: () => [domain.anchor],
    ...(as === undefined ? {} : { credentials: () => as }),
    clock: () => new Date(),
  });
}

export class MemoryPins implements PinStore {
  readonly pins = new Map<Identity, Pin>();

  find(identity: Identity): Pin | undefined {
    return this.pins.get(identity);
  }

  put(identity: Identity, pin: Pin): void {
    this.pins.set(identity, pin);
  }
}

/** What a person publishes about himself, from his test certificates; `devices` beside the first. */
export function ownOf(person: TestPerson, uuid: string, devices: readonly TestCredentials[] = []): OwnIdentity {
  return {
    identity: person.identity,
    uuid,
    name: person.identity,
    devices: [person.auth, ...devices].map(({ certificate }) => ({ certificate, label: "test" })),
    encryption: [person.encryption.certificate],
    chain: person.auth.chain,
  };
}

/** A chain of signed identity objects, each following the one before. */
export async function history(
  steps: readonly { own: OwnIdentity; by: TestCredentials }[],
  now = new Date(),
): Promise<string[]> {
  const made: string[] = [];
  let previous: { seq: number; hash: string } | undefined;
  for (const { own, by } of steps) {
    const jws = await makeIdentity(own, previous, by, now);
    previous = { seq: (previous?.seq ?? 0) + 1, hash: hashOf(jws) };
    made.push(jws);
  }
  return made;
}

/** The payload of a compact JWS as text. */
export function payloadOf(jws: string): string {
  return Buffer.from(jws.split(".")[1] ?? "", "base64url").toString("utf8");
}

export function hashOf(jws: string): string {
  return payloadHash(payloadOf(jws));
}
