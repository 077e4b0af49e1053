import type { HttpsClient } from "../peertls-core/https-client.ts";
import type { Identity } from "../pki/identity.ts";
import { ask, readReply } from "./ask.ts";
import type { PersonAlias } from "./lookup-key.ts";
import { contactsBody, type RootsReply, rootsReply, visibilityBody } from "./records.ts";

/** Who sees what of the own record. */
export interface OwnVisibility {
  certificates: "public" | "authenticated";
  addresses: "public" | "authenticated" | "contacts";
  presence: "authenticated" | "contacts";
}

/** What a person sets at his own domain's server. All fail as look-ups do, and with `forbidden`. */
export class OwnSettings {
  readonly #http: HttpsClient;

  /** @param http kept connections to the own domain's server, with the own certificate */
  constructor(http: HttpsClient) {
    this.#http = http;
  }

  async visibility(signal: AbortSignal): Promise<OwnVisibility> {
    return readReply<OwnVisibility>(visibilityBody, await this.#ask("GET", "/v1/policy", signal));
  }

  async setVisibility(visibility: OwnVisibility, signal: AbortSignal): Promise<void> {
    await this.#ask("PUT", "/v1/policy", signal, visibility);
  }

  /** Who is shown what is for contacts; the server shows them to nobody else. */
  async contacts(signal: AbortSignal): Promise<string[]> {
    const response = await this.#ask("GET", "/v1/contacts", signal);
    return (await readReply<{ contacts: string[] }>(contactsBody, response)).contacts;
  }

  async setContacts(contacts: readonly Identity[], signal: AbortSignal): Promise<void> {
    await this.#ask("PUT", "/v1/contacts", signal, { contacts });
  }

  /** Of the aliases that the own identity object lists; by those that are verified the owner is found. */
  async setAliases(aliases: readonly PersonAlias[], signal: AbortSignal): Promise<void> {
    await this.#ask("PUT", "/v1/aliases", signal, {
      aliases: aliases.map(({ salt, kind, value }) => [salt, kind, value]),
    });
  }

  async dropDevice(fingerprint: string, signal: AbortSignal): Promise<void> {
    await this.#ask("DELETE", `/v1/devices/${fingerprint}`, signal);
  }

  /** Identity objects by which somebody, or a thief, wants to replace the own devices. */
  async heldRoots(signal: AbortSignal): Promise<RootsReply["roots"]> {
    return (await readReply<RootsReply>(rootsReply, await this.#ask("GET", "/v1/roots", signal))).roots;
  }

  async approveRoot(id: string, signal: AbortSignal): Promise<void> {
    await this.#ask("POST", `/v1/roots/${id}`, signal);
  }

  async refuseRoot(id: string, signal: AbortSignal): Promise<void> {
    await this.#ask("DELETE", `/v1/roots/${id}`, signal);
  }

  #ask(method: string, path: string, signal: AbortSignal, json?: object) {
    const body = json === undefined ? {} : { body: JSON.stringify(json), type: "application/json" };
    return ask(this.#http, { method, path, ...body }, signal);
  }
}
