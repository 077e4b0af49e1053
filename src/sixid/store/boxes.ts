import { type Identity, identityDomain } from "../../pki/identity.ts";
import { all, changed, lock, type Operation, one, run } from "./operation.ts";
import type { NewRequest, RequestLimits, RequestOutcome } from "./store.ts";

/** Request boxes. */

export function* putRequest(request: NewRequest, limits: RequestLimits): Operation<RequestOutcome> {
  const { hash, from, signer, to, owner, at, expires, jws } = request;
  yield* lock("requests");
  yield* run("delete from asked where at <= ?1", at - limits.windowMs);
  yield* run("delete from requests where expires <= ?1", at);
  const pair = yield* one<{ hash: string; at: number }>(
    "select hash, at from asked where signer = ?1 and recipient = ?2",
    signer,
    to,
  );
  if (pair?.hash === hash) return { outcome: "repeated" };
  const reached = yield* limitReached(from, pair?.at, limits);
  if (reached !== undefined)
    return { outcome: "too-many", limit: reached.limit, retryAt: reached.since + limits.windowMs };
  yield* run(
    "insert into asked (signer, recipient, from_identity, domain, hash, at) values (?1, ?2, ?3, ?4, ?5, ?6)",
    ...[signer, to, from, identityDomain(from), hash, at],
  );
  if (owner === undefined) return { outcome: "noted" };
  const others = yield* one<{ n: number }>(
    "select count(*) as n from requests where owner = ?1 and from_identity <> ?2",
    owner,
    from,
  );
  if ((others?.n ?? 0) >= limits.pending) return { outcome: "noted" };
  yield* run(
    `insert into requests (owner, from_identity, id, jws, received, expires) values (?1, ?2, ?3, ?4, ?5, ?6)
     on conflict (owner, from_identity) do update
     set id = excluded.id, jws = excluded.jws, received = excluded.received, expires = excluded.expires`,
    ...[owner, from, hash, jws, at, expires],
  );
  yield* changed({ uuid: owner, what: "request" });
  return { outcome: "kept" };
}

export function* requestsOf(owner: string, now: number): Operation<{ id: string; jws: string }[]> {
  const rows = yield* all<{ id: string; jws: string }>(
    "select id, jws from requests where owner = ?1 and expires > ?2 order by received",
    owner,
    now,
  );
  return rows.map(({ id, jws }) => ({ id, jws }));
}

export function* removeRequest(owner: string, id: string): Operation<void> {
  yield* run("delete from requests where owner = ?1 and id = ?2", owner, id);
}

type Reached = { limit: "pair" | "asker" | "domain" | "total"; since: number };

/** The first limit that is reached, and when the oldest request that counts for it came. */
function* limitReached(
  from: Identity,
  pair: number | undefined,
  limits: RequestLimits,
): Operation<Reached | undefined> {
  if (pair !== undefined) return { limit: "pair", since: pair };
  const count = (where: string, ...values: string[]) =>
    one<{ n: number; since: number | null }>(
      `select count(*) as n, min(at) as since from asked where ${where}`,
      ...values,
    );
  const asker = yield* count("from_identity = ?1", from);
  if (asker !== undefined && asker.n >= limits.perAsker) return { limit: "asker", since: asker.since ?? 0 };
  const domain = yield* count("domain = ?1", identityDomain(from));
  if (domain !== undefined && domain.n >= limits.perDomain) return { limit: "domain", since: domain.since ?? 0 };
  const all = yield* count("true");
  if (all !== undefined && all.n >= limits.total) return { limit: "total", since: all.since ?? 0 };
  return undefined;
}
