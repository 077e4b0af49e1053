// The directory beside OpenLDAP's slapd and PostgreSQL, as sixid.md §6 asks: `node bench/sixid.ts [scale] [publishes] [lookups] [--smoke]`. Look-ups over 16 kept
// mutual-TLS connections, each server on one core and its Node client on the other; publishes by the clock on the wall, since what
// counts there is durable.
import { spawn, spawnSync } from "node:child_process";
import { chmodSync, createWriteStream, mkdirSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { DatabaseSync } from "node:sqlite";
import { fileURLToPath } from "node:url";
import { Client as LdapClient } from "ldapts";
import { Pool } from "pg";
import { httpsClient } from "../src/peertls-core/https-client.ts";
import { parseIdentity } from "../src/pki/identity.ts";
import { derToPem } from "../src/pki/pem.ts";
import { makeAddresses, makeIdentity } from "../src/sixid/announce.ts";
import { openPostgresStore } from "../src/sixid/store/postgres.ts";
import { openSqliteStore } from "../src/sixid/store/sqlite.ts";
import type { DirectoryStore } from "../src/sixid/store/store.ts";
import { ownOf } from "../test/support/directory.ts";
import { makeTestDomain } from "../test/support/pki.ts";
import { startPostgres } from "../test/support/postgres.ts";
import { ceiling, compare, cpuSeconds, ended, median, pinned, residentKilobytes, type Sample } from "./support.ts";

const smoke = process.argv.includes("--smoke");
const ROUNDS = smoke ? 1 : 5;
const PEOPLE = smoke ? 1_000 : 100_000;
const LOOKUPS = smoke ? 500 : 20_000;
const PUBLISHES = smoke ? 500 : 10_000;
const [FEW, MANY] = smoke ? [100, 1_000] : [10_000, 1_000_000];
const CONNECTIONS = 16;
const IN_FLIGHT = 32;
const area = "sixid";
const folder = mkdtempSync(join(tmpdir(), "sixtalk-bench-"));
const at = (name: string) => join(folder, name);
const here = (name: string) => fileURLToPath(new URL(name, import.meta.url));
const domain = makeTestDomain({ domain: "bench.test" });
const alice = domain.person({ identity: "alice@bench.test", encryptionKey: "ec" });
const uuidOf = (n: number) => `00000000-0000-7000-8000-${String(n).padStart(12, "0")}`;
/** A real record, of whom all have a copy: a directory does not look into it when it is asked. */
const jws = await makeIdentity(ownOf(alice, uuidOf(0)), undefined, alice.auth, new Date());
const where = { host: "2001:db8::5", port: 4605, kind: "direct", priority: 10 } as const;
const addresses = await makeAddresses(uuidOf(0), [where], Date.now(), alice.auth, new Date());

/** A directory of so many people, each with a record and addresses; written directly, for by the store it takes an hour. */
async function fill(file: string, people: number, identity: string): Promise<void> {
  await openSqliteStore(file).close();
  using database = new DatabaseSync(file);
  database.exec("pragma synchronous = off; begin");
  const user = database.prepare("insert into users (uuid, identity, name, seq) values (?, ?, 'A Person', 1)");
  const object = database.prepare("insert into identities (uuid, seq, hash, jws) values (?, 1, ?, ?)");
  const device = database.prepare(
    "insert into devices (uuid, fingerprint, addresses, addresses_seq, seen) values (?, ?, ?, 1, 1)",
  );
  const { fingerprint } = alice.auth.certificate;
  for (let n = 0; n < people; n += 1) {
    const uuid = uuidOf(n);
    user.run(uuid, `p${n}@bench.test`);
    object.run(uuid, `h${n}`, identity);
    device.run(uuid, `${n}${fingerprint}`.slice(0, 64), addresses);
  }
  database.exec("commit; pragma wal_checkpoint(truncate)");
}

async function inFlight(connections: number, times: number, work: (connection: number, n: number) => Promise<void>) {
  let n = 0;
  const worker = async (connection: number) => {
    while (n < times) {
      n += 1;
      await work(connection, n);
    }
  };
  const start = performance.now();
  await Promise.all(Array.from({ length: connections }, (_, connection) => worker(connection)));
  return (performance.now() - start) / 1_000;
}

/** Our server on its core, with what lies in directory.db, and so many kept connections to it. */
async function ourServer() {
  spawnSync("taskset", ["-pc", "0", String(process.pid)]);
  const server = domain.domainServer();
  const chain = [server.certificate, ...server.chain].map(({ der }) => derToPem(der, "CERTIFICATE"));
  writeFileSync(at("server.pem"), chain.join(""));
  writeFileSync(at("server.key"), server.privateKey.export({ type: "pkcs8", format: "pem" }), { mode: 0o600 });
  writeFileSync(at("root.pem"), derToPem(domain.anchor.certificate.der, "CERTIFICATE"));
  const { child, pid, line } = await pinned(1, process.execPath, [here("sixid-server.ts"), folder], { ready: true });
  const address = { host: "::1", port: Number(line) };
  const clients = Array.from({ length: CONNECTIONS }, () =>
    httpsClient({
      ...{ addresses: () => [address], serverName: "bench.test", anchors: () => [domain.anchor] },
      ...{ credentials: () => alice.auth, clock: () => new Date() },
    }),
  );
  const signal = new AbortController().signal;
  return {
    pid,
    async lookUp(connection: number, identity: string, least: number) {
      const response = await clients[connection]?.request({ method: "GET", path: `/v1/records/${identity}` }, signal);
      if (response?.status !== 200 || response.body.length < least) throw new Error(`look-up: ${response?.status}`);
    },
    async end() {
      for (const client of clients) client.close();
      await ended(child);
      rmSync(at("directory.db"));
    },
  };
}

/** Anybody of so many, not in order, and the same in every run. */
function anybody(people: number): () => string {
  let state = 1;
  return () => {
    state = (Math.imul(state, 1_664_525) + 1_013_904_223) >>> 0;
    return `p${state % people}@bench.test`;
  };
}

/** Look-ups beside slapd: entries with the same octets, the same number of connections, TLS 1.3 with both certificates. */
async function lookups(): Promise<void> {
  await fill(at("directory.db"), PEOPLE, jws);
  const ours = await ourServer();
  const slapd = await startSlapd();
  const ldap = Array.from({ length: CONNECTIONS }, () => slapd.client());
  const someone = anybody(PEOPLE);
  const cpu = { ours: [] as number[], rival: [] as number[] };
  const measured = async (who: "ours" | "rival", pid: number, work: (connection: number) => Promise<void>) => {
    const before = cpuSeconds(pid);
    const seconds = await inFlight(CONNECTIONS, LOOKUPS, work);
    cpu[who].push(((cpuSeconds(pid) - before) / LOOKUPS) * 1e6);
    return { units: LOOKUPS, cpuSeconds: seconds } satisfies Sample;
  };
  await compare({
    ...{ area, case: `look-ups, 16 kept mTLS connections, ${PEOPLE} identities | slapd, ldaps`, unit: "look-ups" },
    ...{ per: "second", rounds: ROUNDS, target: 2, versions: slapd.version },
    ours: () => measured("ours", ours.pid, (connection) => ours.lookUp(connection, someone(), jws.length)),
    rival: () =>
      measured("rival", slapd.pid, async (connection) => {
        const filter = `(mail=${someone()})`;
        const found = await ldap[connection]?.search("dc=bench,dc=test", { filter, attributes: ["description"] });
        if (found?.searchEntries.length !== 1) throw new Error("slapd does not find");
      }),
  });
  const [mine, theirs] = [median(cpu.ours.slice(1)), median(cpu.rival.slice(1))];
  ceiling({ area, case: "server CPU a look-up, against slapd's", unit: "ratio", ours: mine / theirs, target: 1.5 });
  const memory = { residentKilobytes: residentKilobytes(ours.pid), rivalKilobytes: residentKilobytes(slapd.pid) };
  const microseconds = { ours: Math.round(mine), rival: Math.round(theirs) };
  note({ case: "server CPU a look-up", unit: "microseconds", ...microseconds, ...memory });
  for (const client of ldap) await client.unbind();
  await ours.end();
  await slapd.end();
}

/** Debian's slapd with the same entries. Its certificates are made by openssl: GnuTLS takes none below a CA that is bound to names. */
async function startSlapd() {
  const openssl = (...args: string[]) => {
    const { status, stderr } = spawnSync("openssl", args, { cwd: folder });
    if (status !== 0) throw new Error(`openssl ${args[0]}: ${stderr.toString()}`);
  };
  const key = ["-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-days", "30"];
  openssl("req", "-x509", ...key, "-keyout", "ca.key", "-out", "ca.pem", "-subj", "/CN=ca");
  for (const name of ["ldap", "user"]) {
    const issued = ["-CA", "ca.pem", "-CAkey", "ca.key", "-addext", "subjectAltName=DNS:localhost"];
    openssl(
      "req",
      "-x509",
      ...key,
      "-keyout",
      `${name}.key`,
      "-out",
      `${name}.pem`,
      "-subj",
      "/CN=localhost",
      ...issued,
    );
  }
  mkdirSync(at("ldap"));
  const schemas = ["core", "cosine", "inetorgperson"].map((name) => `include /etc/ldap/schema/${name}.schema`);
  const tls = [`TLSCACertificateFile ${at("ca.pem")}`, `TLSCertificateFile ${at("ldap.pem")}`];
  tls.push(`TLSCertificateKeyFile ${at("ldap.key")}`, "TLSVerifyClient demand", "TLSProtocolMin 3.4");
  const database = ["modulepath /usr/lib/ldap", "moduleload back_mdb", "database mdb", "maxsize 4294967296"];
  database.push('suffix "dc=bench,dc=test"', `directory ${at("ldap")}`, "index objectClass,mail,uid eq");
  writeFileSync(at("slapd.conf"), `${[...schemas, ...tls, ...database].join("\n")}\n`);
  const add = spawn("slapadd", ["-q", "-f", at("slapd.conf")], { stdio: ["pipe", "ignore", "inherit"] });
  const ended_ = new Promise((resolve) => add.once("close", resolve));
  const ldif = createWriteStream(at("people.ldif"));
  ldif.write("dn: dc=bench,dc=test\nobjectClass: domain\ndc: bench\n\n");
  for (let n = 0; n < PEOPLE; n += 1) {
    const entry = `dn: uid=p${n},dc=bench,dc=test\nobjectClass: inetOrgPerson\nuid: p${n}\ncn: A\nsn: P\n`;
    const more = `${entry}mail: p${n}@bench.test\ndescription: ${jws}\ndescription: ${addresses}\n\n`;
    if (!ldif.write(more)) await new Promise((resolve) => ldif.once("drain", resolve));
  }
  await new Promise<void>((resolve) => void ldif.end(() => resolve()));
  add.stdin.end(readFileSync(at("people.ldif")));
  if ((await ended_) !== 0) throw new Error("slapadd failed");
  const { child, pid } = await pinned(1, "slapd", ["-f", at("slapd.conf"), "-h", "ldaps://[::1]:6360/", "-d", "0"]);
  const [ca, cert, own] = ["ca.pem", "user.pem", "user.key"].map((name) => readFileSync(at(name)));
  const client = () =>
    new LdapClient({
      url: "ldaps://[::1]:6360",
      tlsOptions: { ca, cert, key: own, minVersion: "TLSv1.3", servername: "localhost" } as never,
    });
  for (let attempt = 0; ; attempt += 1) {
    const first = client();
    try {
      await first.search("dc=bench,dc=test", { scope: "base" });
      await first.unbind();
      break;
    } catch (error) {
      if (attempt > 50) throw error;
      await new Promise((resolve) => setTimeout(resolve, 100));
    }
  }
  const version = /slapd ([\d.]+)/.exec(spawnSync("slapd", ["-VV"]).stderr.toString())?.[1] ?? "";
  return { client, pid, version: `slapd ${version}, Node ${process.version}`, end: () => ended(child) };
}

/** Address publishes that are on the disk when they are answered, beside rows that PostgreSQL answers. */
async function publishes(): Promise<void> {
  const postgres = startPostgres();
  const pool = new Pool({ connectionString: postgres.database(), max: IN_FLIGHT });
  await pool.query(
    "create table devices (uuid text, device text, seq bigint, jws text, seen bigint, primary key (uuid, device))",
  );
  const upsert = `insert into devices values ($1, 'd', $2, $3, 1) on conflict (uuid, device) do update
    set seq = excluded.seq, jws = excluded.jws, seen = excluded.seen where excluded.seq > devices.seq`;
  const version = ((await pool.query("show server_version")).rows[0] as { server_version: string }).server_version;
  const people = async (store: DirectoryStore) => {
    for (let n = 0; n < 1_000; n += 1)
      await store.addUser({ uuid: uuidOf(n), identity: parseIdentity(`p${n}@bench.test`), name: "A" });
    return store;
  };
  const sqlite = await people(openSqliteStore(at("publish.db")));
  const shared = await people(await openPostgresStore(postgres.database()));
  let seq = 0;
  const put = (store: DirectoryStore) => async () => {
    const units = PUBLISHES;
    const seconds = await inFlight(IN_FLIGHT, units, async (_connection, n) => {
      seq += 1;
      const outcome = await store.putAddresses(uuidOf(n % 1_000), "d", { seq, jws: addresses, seen: 1 });
      if (outcome !== "stored") throw new Error("stale");
    });
    return { units, cpuSeconds: seconds };
  };
  const rival = async () => {
    const seconds = await inFlight(IN_FLIGHT, PUBLISHES, async (_connection, n) => {
      seq += 1;
      await pool.query({ name: "upsert", text: upsert, values: [uuidOf(n % 1_000), seq, addresses] });
    });
    return { units: PUBLISHES, cpuSeconds: seconds };
  };
  const common = { area, unit: "publishes", per: "second", rounds: ROUNDS, versions: `PostgreSQL ${version}` };
  const rows = "single-row upserts, commit on";
  await compare({
    ...common,
    case: `durable publishes, 32 in flight, SQLite | ${rows}`,
    target: 1,
    ours: put(sqlite),
    rival,
  });
  await compare({
    ...common,
    case: `the same by the PostgreSQL store, for orientation | ${rows}`,
    target: 0,
    ours: put(shared),
    rival,
  });
  await sqlite.close();
  await shared.close();
  await pool.end();
  await postgres[Symbol.asyncDispose]();
}

/** A look-up among many people against one among few. Records of 1,000 octets: what grows is the way to them. */
async function scale(): Promise<void> {
  const measured: { people: number; microseconds: number; rssAnon: number; store: unknown }[] = [];
  for (const people of [FEW, MANY]) {
    await fill(at("directory.db"), people, jws.slice(0, 1_000));
    const args = [here("sixid-find.ts"), at("directory.db"), String(people), String(smoke ? 1_000 : 200_000)];
    const store: unknown = JSON.parse(spawnSync(process.execPath, args).stdout.toString());
    const ours = await ourServer();
    const someone = anybody(people);
    const rounds: number[] = [];
    for (let round = 0; round <= ROUNDS; round += 1) {
      const before = cpuSeconds(ours.pid);
      await inFlight(CONNECTIONS, LOOKUPS, (connection) => ours.lookUp(connection, someone(), 1_000));
      if (round > 0) rounds.push(((cpuSeconds(ours.pid) - before) / LOOKUPS) * 1e6);
    }
    const status = readFileSync(`/proc/${ours.pid}/status`, "utf8");
    const rssAnon = Number(/RssAnon:\s+(\d+)/.exec(status)?.[1]);
    measured.push({ people, microseconds: median(rounds), rssAnon, store });
    await ours.end();
  }
  const [few, many] = measured;
  if (few === undefined || many === undefined) return;
  const of = `at ${MANY} identities against ${FEW}`;
  const { microseconds, rssAnon } = many;
  ceiling({
    area,
    case: `server CPU a look-up ${of}`,
    unit: "ratio",
    ours: microseconds / few.microseconds,
    target: 1.5,
  });
  ceiling({ area, case: `RssAnon ${of}`, unit: "ratio", ours: rssAnon / few.rssAnon, target: 1.2 });
  note({ case: "look-ups, over the wire and in the store alone", few, many });
}

/** A figure that has no target. */
function note(figures: object): void {
  process.stdout.write(`${JSON.stringify({ area, ...figures })}\n`);
}

try {
  chmodSync(folder, 0o755);
  const parts = { scale, publishes, lookups };
  const named = process.argv.slice(2).filter((argument) => !argument.startsWith("--"));
  for (const [name, part] of Object.entries(parts)) if (named.length === 0 || named.includes(name)) await part();
} finally {
  rmSync(folder, { recursive: true, force: true });
}
