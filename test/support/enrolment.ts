import { randomBytes } from "node:crypto";
import { fastify } from "fastify";
import { Approvals } from "../../src/irp/approvals.ts";
import { IrpClient } from "../../src/irp/client.ts";
import type { EnrolDirectory, KeyBackups } from "../../src/irp/directory.ts";
import { est } from "../../src/irp/est.ts";
import type { Registered } from "../../src/irp/register.ts";
import { type Approval, Registration } from "../../src/irp/registration.ts";
import { serveIrp } from "../../src/irp/server.ts";
import { answerStatus } from "../../src/irp/status-http.ts";
import { type HttpsClient, httpsClient } from "../../src/peertls-core/https-client.ts";
import { listenPlainHttp } from "../../src/peertls-core/plain-http.ts";
import { httpsService } from "../../src/peertls-core/service.ts";
import { parseCertificate } from "../../src/pki/certificate.ts";
import { makeCsr } from "../../src/pki/csr.ts";
import { type Identity, parseIdentity } from "../../src/pki/identity.ts";
import { Accounts } from "../../src/sixid/server/accounts.ts";
import { openSqliteStore } from "../../src/sixid/store/sqlite.ts";
import { makeTestCa, type TestCa } from "./ca.ts";
import { makeEcKey, type TestCredentials } from "./pki.ts";
import { recordLog } from "./record-log.ts";

export interface EnrolmentOptions {
  approval?: Approval;
  directory?: EnrolDirectory;
  backups?: KeyBackups;
  /** Whose role is to administrate. */
  administrators?: readonly string[];
  registrars?: readonly Identity[];
}

/** Every face of enrolment over one CA, on ports that the system chooses: IRP, EST, lists and OCSP. */
export async function startEnrolment(o: EnrolmentOptions = {}) {
  const it: TestCa = makeTestCa();
  const { ca, keys } = it;
  const clock = () => it.now;
  const log = recordLog();
  const store = openSqliteStore(":memory:");
  const real = new Accounts({ store, domain: "alpha.test", clock, random: randomBytes });
  const roles = (identity: Identity) => ((o.administrators ?? []).includes(identity) ? { roles: ["admin"] } : {});
  const accounts = {
    find: async (identity: Identity) => {
      const found = await real.find(identity);
      return found && { ...found, ...roles(identity) };
    },
    authenticateCode: (user: string, code: string) => real.authenticateCode(user, code),
    authenticatePassword: (user: string, password: string) => real.authenticatePassword(user, password),
    redeem: (identity: Identity, code: string, use: string) => real.redeem(identity, code, use),
  };
  const approvals = new Approvals(ca.register, randomBytes);
  const revoked: Registered[] = [];
  const registration = new Registration({
    ...{ authority: ca, accounts, log, clock, onRevoked: (one: Registered) => void revoked.push(one) },
    ...(o.approval === undefined ? {} : { approval: { mode: o.approval, approvals, retrySeconds: 1 } }),
  });
  const anchors = [{ name: "alpha.test", certificate: keys.root }];
  const tls = { credentials: keys.server, clientAnchors: () => anchors, clock, log };
  const irp = await serveIrp({
    ...{ at: { host: "::1", port: 0 }, domain: "alpha.test", tls, accounts, registration, clock, log },
    ...(o.directory === undefined ? {} : { directory: o.directory }),
    ...(o.backups === undefined ? {} : { backups: o.backups }),
  });
  const https = httpsService({ ...tls, host: "::1", port: 0 });
  const app = fastify({ serverFactory: (handler) => https.serverFactory(handler) });
  const callerOf = (socket: object) => https.callerOf(socket);
  await app.register(est, {
    ...{ domain: "alpha.test", accounts, registration, callerOf, log },
    ...(o.registrars === undefined ? {} : { registrars: o.registrars }),
  });
  await app.ready();
  const estAt = await https.listen();
  const status = await listenPlainHttp({ host: "127.0.0.1", port: 0 }, (request) =>
    answerStatus(request, { authority: ca, fault: () => ca.fault, clock }),
  );
  const clients: HttpsClient[] = [];
  const signal = () => AbortSignal.timeout(10_000);
  let people = 0;

  return {
    ...{ it, ca, keys, real, accounts, approvals, registration, revoked, irp, estAt, status, log, clock, anchors },

    /** A person with an invitation code. */
    async invited(user = `person${(people += 1)}`) {
      const identity = parseIdentity(`${user}@alpha.test`);
      return { identity, code: (await real.invite(identity, "A Person")).code };
    },

    /** A person with a password. */
    async withPassword(password = "a long enough password", user?: string) {
      const person = await this.invited(user);
      const account = await real.find(person.identity);
      await real.setPassword(account?.uuid ?? "", password);
      return { ...person, password, uuid: account?.uuid ?? "" };
    },

    /** A session inside TLS. */
    connect(credentials?: TestCredentials) {
      const trust = { anchors };
      const base = { address: irp.address, domain: "alpha.test", trust, clock };
      return IrpClient.connect({ ...base, ...(credentials === undefined ? {} : { credentials }) }, signal());
    },

    /** A person who has a certificate, and a session that it authenticated. */
    async enrolled(user?: string) {
      const { identity, code } = await this.invited(user);
      const privateKey = makeEcKey();
      const first = await this.connect();
      await first.authenticate(identity, { code });
      const made = await first.enrol("auth", makeCsr({ privateKey, commonName: "x" }), "laptop");
      first.close();
      if ("ref" in made) throw new Error("it waits");
      const [certificate, ...chain] = made.certificates;
      if (certificate === undefined) throw new Error("no certificate");
      const credentials: TestCredentials = { privateKey, certificate: parseCertificate(certificate.der), chain };
      const session = await this.connect(credentials);
      await session.authenticateByCertificate();
      const serial = Buffer.from(certificate.serial).toString("hex");
      return { identity, code, credentials, session, serial, close: () => session.close() };
    },

    /** Asks the EST face. */
    async est(
      path: string,
      ask: {
        credentials?: TestCredentials;
        basic?: string;
        csr?: Buffer | string;
        method?: string;
        type?: string;
      } = {},
    ) {
      const client = httpsClient({
        ...{ addresses: () => [estAt], serverName: "alpha.test", anchors: () => anchors, clock },
        credentials: () => ask.credentials,
      });
      clients.push(client);
      const body = typeof ask.csr === "string" ? ask.csr : ask.csr?.toString("base64");
      const headers = {
        ...(ask.basic === undefined ? {} : { authorization: `Basic ${Buffer.from(ask.basic).toString("base64")}` }),
        ...(body === undefined ? {} : { "content-type": ask.type ?? "application/pkcs10" }),
      };
      const method = ask.method ?? (body === undefined ? "GET" : "POST");
      return client.request(
        { method, path: `/.well-known/est/${path}`, headers, ...(body === undefined ? {} : { body }) },
        signal(),
      );
    },

    async [Symbol.asyncDispose]() {
      for (const client of clients) client.close();
      await irp.close();
      await https.close();
      await app.close();
      await status.close();
      await store.close();
      it[Symbol.dispose]();
    },
  };
}
