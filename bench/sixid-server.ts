// Our side of bench/sixid: the directory of bench.test on a port of the system's choice, without quotas. `node
// bench/sixid-server.ts DIRECTORY`, where directory.db, server.pem (chain behind), server.key and root.pem lie. Prints its port.
import { createPrivateKey, randomBytes } from "node:crypto";
import { readFileSync } from "node:fs";
import { join } from "node:path";
import { fastify } from "fastify";
import { httpsClient } from "../src/peertls-core/https-client.ts";
import { httpsService } from "../src/peertls-core/service.ts";
import { parseCertificate } from "../src/pki/certificate.ts";
import { silentLog } from "../src/pki/log.ts";
import { pemToDer } from "../src/pki/pem.ts";
import { Accounts } from "../src/sixid/server/accounts.ts";
import { Federation } from "../src/sixid/server/federation.ts";
import { routes } from "../src/sixid/server/http.ts";
import { Recursion } from "../src/sixid/server/recursion.ts";
import { DirectoryService } from "../src/sixid/server/service.ts";
import { openSqliteStore } from "../src/sixid/store/sqlite.ts";

const [folder = ""] = process.argv.slice(2);
const domain = "bench.test";
const certificates = (name: string) =>
  pemToDer(readFileSync(join(folder, name), "utf8"), "CERTIFICATE").map((der) => parseCertificate(der));
const [certificate, ...chain] = certificates("server.pem");
const [root] = certificates("root.pem");
if (certificate === undefined || root === undefined) throw new Error("no certificates");
const credentials = { certificate, chain, privateKey: createPrivateKey(readFileSync(join(folder, "server.key"))) };
const anchors = [{ name: domain, certificate: root }];
const shared = { clock: () => new Date(), log: silentLog };
const store = openSqliteStore(join(folder, "directory.db"));
const accounts = new Accounts({ store, domain, random: randomBytes, clock: shared.clock });
const federation = new Federation({
  ...{ ...shared, domain, mode: "closed", configured: () => [], webAnchors: () => [], mayAsk: () => false },
  locator: { servers: async () => [] },
  connect: (o) => httpsClient({ ...o, serverName: o.domain, clock: shared.clock }),
});
const https = httpsService({ ...shared, credentials, clientAnchors: () => anchors, host: "::1", port: 0 });
const app = fastify({
  serverFactory: (handler) => https.serverFactory(handler),
  bodyLimit: 131_072,
  routerOptions: { maxParamLength: 320 },
});
const recursion = new Recursion({ domain, clientFor: (name) => federation.clientFor(name), log: silentLog });
const service = new DirectoryService({
  ...{ ...shared, domain, store, accounts, recursion, federation, anchors: () => anchors },
  document: async () => "",
  quotas: false,
});
const identityOf = async (uuid: string) => (await store.userById(uuid))?.identity;
await app.register(routes, { service, accounts, https, federation, identityOf, log: silentLog });
await app.ready();
const { port } = await https.listen();
process.stdout.write(`${port}\n`);
