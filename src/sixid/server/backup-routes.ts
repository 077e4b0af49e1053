import type { FastifyInstance, FastifyRequest } from "fastify";
import { z } from "zod";
import { parseIdentity } from "../../pki/identity.ts";
import { SuiteError } from "../../pki/suite-error.ts";
import { type Backups, MAX_BACKUP_BYTES } from "./backups.ts";
import type { Caller } from "./caller.ts";
import type { Schema } from "./own-routes.ts";

const TYPE = "application/pkcs12";
const recovery = z.strictObject({ user: z.string().max(254), code: z.string().min(16).max(64) });

/** Backups that people keep with the directory, below `/v1`. */
export function backupRoutes(
  app: FastifyInstance,
  o: {
    backups: Backups;
    caller: (request: FastifyRequest) => Promise<Caller>;
    body: <T>(schema: Schema, request: FastifyRequest) => T;
  },
): void {
  const { backups, caller } = o;
  // One octet more is told from the largest that is taken.
  app.addContentTypeParser(TYPE, { parseAs: "buffer", bodyLimit: MAX_BACKUP_BYTES + 1 }, (_request, body, done) =>
    done(null, body),
  );
  app.put("/v1/backups", { bodyLimit: MAX_BACKUP_BYTES + 1 }, async (request) => {
    if (!Buffer.isBuffer(request.body)) throw new SuiteError("syntax", `a backup is ${TYPE}`, { fault: "peer" });
    const given = request.headers["recovery-hash"];
    if (given !== undefined && !/^[0-9a-f]{64}$/.test(String(given)))
      throw new SuiteError("syntax", "a recovery hash has 64 hexadecimal digits", { fault: "peer" });
    return backups.put(await caller(request), request.body, given === undefined ? undefined : String(given));
  });
  app.get("/v1/backups", async (request) => backups.list(await caller(request)));
  app.get<{ Params: { version: string } }>("/v1/backups/:version", async (request, reply) => {
    const version = Number(request.params.version);
    const bytes = await backups.get(await caller(request), Number.isSafeInteger(version) ? version : 0);
    return reply.type(TYPE).send(bytes);
  });
  app.post("/v1/recovery", async (request, reply) => {
    const { user, code } = o.body<z.infer<typeof recovery>>(recovery, request);
    return reply.type(TYPE).send(await backups.recover(parseIdentity(user), code));
  });
}
