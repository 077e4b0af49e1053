import type { FastifyInstance, FastifyReply, FastifyRequest } from "fastify";
import { z } from "zod";
import type { HttpsService, ServiceCaller } from "../../peertls-core/service.ts";
import type { Fingerprint } from "../../pki/certificate.ts";
import type { Identity } from "../../pki/identity.ts";
import { parseIdentity } from "../../pki/identity.ts";
import type { Log } from "../../pki/log.ts";
import { asSuiteError, SuiteError, type SuiteErrorCode } from "../../pki/suite-error.ts";
import { MAX_KEYS, type WatchBody, watchBody } from "../records.ts";
import type { Accounts } from "./accounts.ts";
import { backupRoutes } from "./backup-routes.ts";
import { type Caller, callerOfCertificate, callerOfToken } from "./caller.ts";
import type { Federation } from "./federation.ts";
import { ownRoutes, type Schema } from "./own-routes.ts";
import type { DirectoryService } from "./service.ts";

export interface RoutesOptions {
  service: DirectoryService;
  accounts: Accounts;
  https: HttpsService;
  federation: Pick<Federation, "callerOf">;
  /** Whether a key was revoked while connections by it are open; absent: nobody is asked. */
  isRevoked?: (fingerprint: Fingerprint) => boolean;
  identityOf: (uuid: string) => Promise<Identity | undefined>;
  log: Log;
}

const question = z.strictObject({
  key: z.string().max(300),
  onBehalfOf: z.string().max(254),
  hops: z.number().int().min(1).max(16),
  trail: z.array(z.string().max(253)).max(16),
});
const severalKeys = z.strictObject({ keys: z.array(z.string().max(300)).max(MAX_KEYS) });
const piece = z.object({ from: z.coerce.number().int().min(1).default(1), of: z.string().max(254).optional() });
const password = z.strictObject({ password: z.string().max(4096) });

/** The HTTP face, below `/v1`. Errors are problem documents (RFC 9457) with a `code`. */
export async function routes(app: FastifyInstance, o: RoutesOptions): Promise<void> {
  const { service, accounts } = o;
  app.addContentTypeParser("application/jose", { parseAs: "string", bodyLimit: 131_072 }, (_request, body, done) =>
    done(null, body),
  );
  app.setErrorHandler((error, request, reply) => problem(error, request, reply, o.log));
  app.setNotFoundHandler((request, reply) =>
    problem(new SuiteError("not-found", "no such route", { fault: "peer" }), request, reply, o.log),
  );

  /** Whom a connection's certificate was found to name later than in the handshake. */
  const found = new WeakMap<object, ServiceCaller>();
  const caller = async (request: FastifyRequest): Promise<Caller> => {
    const { socket } = request.raw;
    const shown = found.get(socket) ?? o.https.callerOf(socket);
    const known = shown.presented === undefined ? shown : await o.federation.callerOf(shown);
    if (known.certificate !== undefined) found.set(socket, known);
    const certified = callerOfCertificate(known);
    if (certified.kind === "person" && certified.by === "sca" && o.isRevoked?.(certified.fingerprint) === true) {
      socket.destroy(); // it was opened before; another one is refused in the handshake
      throw new SuiteError("forbidden", "the certificate is revoked", { fault: "peer" });
    }
    if (certified.kind !== "anonymous") return certified;
    const { authorization } = request.headers;
    const logged = await callerOfToken(authorization, accounts, o.identityOf);
    return logged.kind === "anonymous" ? { kind: "anonymous", from: known.address.host } : logged;
  };
  const jws = (request: FastifyRequest): string => {
    if (typeof request.body !== "string")
      throw new SuiteError("syntax", "a signed object is needed (application/jose)", { fault: "peer" });
    return request.body;
  };
  const gone = (request: FastifyRequest): AbortSignal => {
    const controller = new AbortController();
    request.raw.once("aborted", () => controller.abort());
    return controller.signal;
  };

  app.get<{ Params: { key: string } }>("/v1/records/:key", async (request) =>
    service.lookup(await caller(request), request.params.key, gone(request)),
  );
  app.post("/v1/records", async (request) =>
    service.lookups.several(
      await caller(request),
      body<z.infer<typeof severalKeys>>(severalKeys, request).keys,
      gone(request),
    ),
  );
  app.get<{ Params: { uuid: string } }>("/v1/identity/:uuid/chain", async (request) => {
    const { from, of } = parsed<z.infer<typeof piece>>(piece, request.query);
    const whose = of === undefined ? undefined : parseIdentity(of);
    return service.lookups.chain(await caller(request), request.params.uuid, from, whose, gone(request));
  });
  app.post("/v1/recursive", async (request) => {
    const asked = body<z.infer<typeof question>>(question, request);
    return service.recursive(await caller(request), { ...asked, onBehalfOf: parseIdentity(asked.onBehalfOf) });
  });
  app.get("/v1/domain", async () => service.domain());
  app.get<{ Params: { domain: string } }>("/v1/domains/:domain", async (request) =>
    service.otherDomain(await caller(request), request.params.domain),
  );
  app.get("/v1/domains", async (request) => service.domains(await caller(request)));
  app.post("/v1/watch", async (request, reply) => {
    const { raw } = reply;
    const known = body<WatchBody>(watchBody, request);
    const end = await service.watch(await caller(request), known, {
      write: (text) => {
        if (!raw.headersSent) raw.writeHead(200, { "content-type": "text/event-stream", "cache-control": "no-store" });
        raw.write(text);
        return raw.writableLength;
      },
      end: () => raw.destroy(),
    });
    raw.once("close", end);
    return reply.hijack();
  });
  ownRoutes(app, { service, caller, jws, body });
  backupRoutes(app, { backups: service.backups, caller, body });
  app.post("/v1/requests", async (request, reply) =>
    reply.code(202).send(await service.requests.handIn(await caller(request), jws(request))),
  );
  app.get("/v1/requests", async (request) => service.requests.list(await caller(request)));
  app.delete<{ Params: { id: string } }>("/v1/requests/:id", async (request, reply) => {
    await service.requests.drop(await caller(request), request.params.id);
    return reply.code(204).send();
  });
  app.put("/v1/password", async (request, reply) => {
    await service.setPassword(await caller(request), body<z.infer<typeof password>>(password, request).password);
    return reply.code(204).send();
  });
  app.post("/v1/session", async (request) => {
    const { user, secret } = basic(request.headers.authorization);
    const from = o.https.callerOf(request.raw.socket).address.host;
    const session = await accounts.openSession(await accounts.authenticatePassword(user, secret, from));
    return { token: session.token, expires: Math.floor(session.expires.getTime() / 1000) };
  });
  app.delete("/v1/session", async (request, reply) => {
    const token = /^Bearer (\S+)$/.exec(request.headers.authorization ?? "")?.[1];
    if (token !== undefined) await accounts.closeSession(token);
    return reply.code(204).send();
  });
}

const STATUS: Partial<Record<SuiteErrorCode, number>> = {
  syntax: 400,
  "identity-invalid": 400,
  "auth-failed": 401,
  forbidden: 403,
  "unknown-recipient": 404,
  "not-found": 404,
  conflict: 409,
  "record-rejected": 422,
  busy: 429,
  "store-failed": 503,
  "directory-unavailable": 504,
  "limit-exceeded": 508,
};

function problem(thrown: unknown, request: FastifyRequest, reply: FastifyReply, log: Log): FastifyReply {
  const status = (thrown as { statusCode?: number }).statusCode;
  const error = thrown instanceof SuiteError ? thrown : undefined;
  // What Fastify itself refuses (body too large, wrong content type, bad JSON) keeps its status.
  const code = error?.code ?? (status !== undefined && status < 500 ? "syntax" : "internal");
  const answer =
    error === undefined ? (status !== undefined && status < 500 ? status : 500) : (STATUS[error.code] ?? 500);
  if (answer >= 500)
    log.error(
      { error: asSuiteError(thrown), method: request.method, route: request.routeOptions.url },
      "directory request failed",
    );
  // The other domain's lie is not the caller's fault: 502 (sixid.md §5).
  const final = code === "record-rejected" && error?.fault === "service" && request.method === "GET" ? 502 : answer;
  const retry = error?.details["retrySeconds"];
  if (typeof retry === "number") reply.header("retry-after", String(retry));
  const { step, revoked } = error?.details ?? {};
  return reply
    .code(final)
    .type("application/problem+json")
    .send(
      JSON.stringify({
        title: error?.message ?? "the request failed",
        status: final,
        code,
        ...(step === undefined ? {} : { step }),
        ...(typeof revoked === "string" ? { revoked: revoked.split(" ") } : {}),
      }),
    );
}

function body<T>(schema: Schema, request: FastifyRequest): T {
  return parsed(schema, request.body);
}

function parsed<T>(schema: Schema, value: unknown): T {
  const result = schema.safeParse(value);
  if (!result.success) throw new SuiteError("syntax", "the body is not what this route takes", { fault: "peer" });
  return result.data as T;
}

/** RFC 7617. */
function basic(authorization: string | undefined): { user: string; secret: string } {
  const encoded = /^Basic ([A-Za-z0-9+/]+={0,2})$/.exec(authorization ?? "")?.[1];
  const [user = "", ...rest] = Buffer.from(encoded ?? "", "base64")
    .toString("utf8")
    .split(":");
  if (user === "" || rest.length === 0)
    throw new SuiteError("auth-failed", "wrong user, password or code", { fault: "peer" });
  return { user, secret: rest.join(":") };
}
