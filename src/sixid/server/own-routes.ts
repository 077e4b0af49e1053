import type { FastifyInstance, FastifyRequest } from "fastify";
import type { z } from "zod";
import { type AliasesBody, aliasesBody, contactsBody, visibilityBody } from "../records.ts";
import type { Visibility } from "../store/store.ts";
import type { Caller } from "./caller.ts";
import type { DirectoryService } from "./service.ts";

export interface Schema<T = unknown> {
  safeParse(value: unknown): { success: boolean; data?: T };
}

export interface OwnRoutesOptions {
  service: Pick<DirectoryService, "own">;
  caller: (request: FastifyRequest) => Promise<Caller>;
  /** @throws SuiteError syntax */
  jws: (request: FastifyRequest) => string;
  /** @throws SuiteError syntax */
  body: <T>(schema: Schema, request: FastifyRequest) => T;
}

/** The routes by which people tell of themselves. */
export function ownRoutes(app: FastifyInstance, { service: { own }, caller, jws, body }: OwnRoutesOptions): void {
  type Device = { Params: { device: string } };
  type Root = { Params: { id: string } };
  app.put("/v1/identity", async (request, reply) => {
    const stored = await own.putIdentity(await caller(request), jws(request));
    return reply.code(stored.held === undefined ? 200 : 202).send(stored);
  });
  app.put<Device>("/v1/devices/:device/addresses", async (request) =>
    own.putAddresses(await caller(request), request.params.device, jws(request)),
  );
  app.put<Device>("/v1/devices/:device/presence", async (request) =>
    own.putPresence(await caller(request), request.params.device, jws(request)),
  );
  app.delete<Device>("/v1/devices/:device", async (request, reply) => {
    await own.dropDevice(await caller(request), request.params.device);
    return reply.code(204).send();
  });
  app.get("/v1/roots", async (request) => own.roots(await caller(request)));
  app.post<Root>("/v1/roots/:id", async (request) => own.approveRoot(await caller(request), request.params.id));
  app.delete<Root>("/v1/roots/:id", async (request, reply) => {
    await own.refuseRoot(await caller(request), request.params.id);
    return reply.code(204).send();
  });
  app.put("/v1/aliases", async (request, reply) => {
    await own.putAliases(await caller(request), body<AliasesBody>(aliasesBody, request));
    return reply.code(204).send();
  });
  app.get("/v1/policy", async (request) => own.visibility(await caller(request)));
  app.put("/v1/policy", async (request, reply) => {
    await own.setVisibility(await caller(request), body<Visibility>(visibilityBody, request));
    return reply.code(204).send();
  });
  app.get("/v1/contacts", async (request) => own.contacts(await caller(request)));
  app.put("/v1/contacts", async (request, reply) => {
    await own.setContacts(await caller(request), body<z.infer<typeof contactsBody>>(contactsBody, request).contacts);
    return reply.code(204).send();
  });
}
