import { randomBytes } from "node:crypto";
import { z } from "zod";
import type { StoredEvent } from "../delivery/events.ts";
import type { Store } from "../delivery/store.ts";
import { type Certificate, parseCertificate } from "../pki/certificate.ts";
import { parseIdentity } from "../pki/identity.ts";
import { derToPem, pemToDer } from "../pki/pem.ts";
import { SuiteError } from "../pki/suite-error.ts";
import { loadConfig } from "./config.ts";
import { contentMethods } from "./content-methods.ts";
import { type Method, method } from "./control.ts";
import { examine } from "./doctor.ts";
import { told } from "./history.ts";
import type { PeerNode } from "./node.ts";

const person = z.string().max(254);
const text = z.string().max(128);
const nothing = z.strictObject({});
const protocol = z.enum(["sip", "smtp", "ftps"]);
const MAX_EVENTS = 500;

/** What the command line may ask of a running node. */
export function controlMethods(node: PeerNode): Readonly<Record<string, Method>> {
  const { state, store, outbox, access } = node;
  return {
    ...contentMethods(node),
    status: method(nothing, async () => ({
      identity: node.identity,
      startedAt: node.startedAt,
      ports: node.ports,
      directory: node.announcer.state,
      certificateEnds: node.keys.auth.certificate.validity.notAfter,
      gate: node.peerTls.selfTest,
      connections: node.peerTls.connections.map(({ identity, protocol, direction }) => ({
        identity,
        protocol,
        direction,
      })),
      waiting: (await outbox.receipts({ open: true })).length,
      requests: state.requests().filter((one) => one.state === "pending").length,
    })),
    lookup: method(z.strictObject({ identity: person }), async ({ identity }, _emit, signal) => {
      const record = await node.directory.lookup(parseIdentity(identity), { fresh: true }, signal);
      const { name, seq, trust, stale } = record;
      const [newest] = record.encryption;
      const devices = record.devices.map(({ label, fingerprint, addresses, seen }) => ({
        label,
        fingerprint,
        addresses,
        seen,
      }));
      return {
        identity: record.identity,
        name,
        seq,
        trust,
        stale,
        devices,
        encryption: record.encryption.map((one) => one.fingerprint),
        ...(newest === undefined ? {} : { certificate: derToPem(newest.der, "CERTIFICATE") }),
        opens: record.capabilities.cms,
      };
    }),
    devices: method(nothing, async (_params, _emit, signal) => node.devices.list(signal)),
    "devices.remove": method(z.strictObject({ device: text }), async ({ device }, _emit, signal) => ({
      removed: await node.devices.remove(device, signal),
    })),
    "devices.decide": method(
      z.strictObject({ id: text, decision: z.enum(["approve", "refuse"]) }),
      async ({ id, decision }, _emit, signal) => node.devices.decide(id, decision, signal),
    ),
    contacts: method(nothing, async () => state.contacts()),
    "contacts.add": method(
      z.strictObject({ identity: person, name: z.string().max(128) }),
      async ({ identity, name }) => ({
        added: await node.addContact(parseIdentity(identity), name),
      }),
    ),
    "contacts.remove": method(z.strictObject({ identity: person }), async ({ identity }) => ({
      removed: await node.removeContact(parseIdentity(identity)),
    })),
    requests: method(nothing, async () => state.requests()),
    "requests.decide": method(
      z.strictObject({ from: person, decision: z.enum(["accept", "accept-organisation", "reject", "block"]) }),
      async ({ from, decision }) => node.requests.decide(parseIdentity(from), decision),
    ),
    "trust.allow": method(z.strictObject({ identity: person }), async ({ identity }) =>
      addEntry(node, "allow", identity),
    ),
    "trust.block": method(z.strictObject({ identity: person }), async ({ identity }) =>
      addEntry(node, "block", identity),
    ),
    "trust.explain": method(
      z.union([
        z.strictObject({ pem: z.string().max(262_144), protocol }),
        z.strictObject({ identity: person, protocol: protocol.default("sip") }),
      ]),
      async (asked, _emit, signal) => {
        const [leaf, sent] = await ("pem" in asked ? fromPem(asked.pem) : fromRecord(node, asked.identity, signal));
        return node.peerTls.explain(leaf, sent, asked.protocol);
      },
    ),
    /** At most 500 of those behind `after`; if there are none yet, waits so long for the first. */
    events: method(
      z.strictObject({ after: z.number().int().min(0).default(0), waitSeconds: z.number().min(0).max(60).default(0) }),
      async ({ after, waitSeconds }, _emit, signal) => eventsAfter(store, after, waitSeconds, signal),
    ),
    /** Who came to the gate, newest first. */
    "trust.history": method(
      z.strictObject({ outcome: z.enum(["admitted", "denied"]).optional(), limit: z.number().int().min(1).max(1_000) }),
      async ({ outcome, limit }) =>
        node.history
          .list(outcome)
          .slice(0, limit)
          .map((one) => told(one)),
    ),
    /** A configuration file's rules, tried on those who came; nothing is changed. */
    "trust.try": method(z.strictObject({ path: z.string().min(1) }), async ({ path }) =>
      node.tryTrust(loadConfig(path)).map(({ was, would }) => ({ was: told(was), would })),
    ),
    doctor: method(nothing, async (_params, _emit, signal) => examine(node, new Date(), signal)),
    "app-passwords": method(nothing, async () =>
      access.list().map(({ id, label, createdAt }) => ({ id, label, createdAt })),
    ),
    "app-passwords.create": method(z.strictObject({ label: z.string().min(1).max(64) }), async ({ label }) =>
      access.create(label, new Date(), randomBytes),
    ),
    "app-passwords.remove": method(z.strictObject({ id: z.string().max(16) }), async ({ id }) => ({
      removed: access.remove(id),
    })),
  };
}

async function eventsAfter(
  store: Store,
  after: number,
  waitSeconds: number,
  signal: AbortSignal,
): Promise<StoredEvent[]> {
  const found: StoredEvent[] = [];
  if (after >= store.events.last && waitSeconds === 0) return found;
  const until = waitSeconds === 0 ? signal : AbortSignal.any([signal, AbortSignal.timeout(waitSeconds * 1000)]);
  for await (const event of store.events.follow(after, until)) {
    found.push(event);
    if (event.seq >= store.events.last || found.length === MAX_EVENTS) break;
  }
  return found;
}

function fromPem(pem: string): [Certificate, readonly Certificate[]] {
  const [leaf, ...sent] = pemToDer(pem, "CERTIFICATE").map((der) => parseCertificate(der));
  if (leaf === undefined) throw new SuiteError("syntax", "the file holds no certificate", { fault: "local" });
  return [leaf, sent];
}

/** The person's first device, as the directory has it. */
async function fromRecord(
  node: PeerNode,
  identity: string,
  signal: AbortSignal,
): Promise<[Certificate, readonly Certificate[]]> {
  const record = await node.directory.lookup(parseIdentity(identity), {}, signal);
  const [device] = record.devices;
  if (device === undefined)
    throw new SuiteError("not-found", "the person's record has no device", { fault: "local", details: { identity } });
  return [device.certificate.certificate, record.chain];
}

async function addEntry(
  node: PeerNode,
  list: "allow" | "block",
  identity: string,
): Promise<{ list: string; identity: string }> {
  const entry = { identity: parseIdentity(identity) };
  node.state.addTrustEntry(list, entry, new Date());
  node.applyTrust();
  return { list, identity: entry.identity };
}
