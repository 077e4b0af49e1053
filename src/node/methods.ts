import { randomBytes } from "node:crypto";
import { z } from "zod";
import { parseCertificate } from "../pki/certificate.ts";
import { parseIdentity } from "../pki/identity.ts";
import { pemToDer } from "../pki/pem.ts";
import { SuiteError } from "../pki/suite-error.ts";
import { storedText } from "../sip/instant.ts";
import { type Method, method } from "./control.ts";
import type { PeerNode } from "./node.ts";

const person = z.string().max(254);
const nothing = z.strictObject({});
const SEND_WAIT_MS = 5_000;

/** What the command line may ask of a running node. */
export function controlMethods(node: PeerNode): Readonly<Record<string, Method>> {
  const { state, store, outbox, access } = node;
  return {
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
    send: method(
      z.strictObject({ to: person, text: z.string().min(1).max(32_768) }),
      async ({ to, text }, _emit, signal) => {
        const identity = parseIdentity(to);
        await node.addContact(identity, to);
        const item = await node.sip.send([identity], text);
        await outbox.settled(item, AbortSignal.any([signal, AbortSignal.timeout(SEND_WAIT_MS)]));
        const [receipt] = await outbox.receipts({ item });
        return { item, status: receipt?.status };
      },
    ),
    lookup: method(z.strictObject({ identity: person }), async ({ identity }, _emit, signal) => {
      const record = await node.directory.lookup(parseIdentity(identity), { fresh: true }, signal);
      const { name, seq, trust, stale } = record;
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
      };
    }),
    inbox: method(z.strictObject({ limit: z.number().int().min(1).max(1_000).default(50) }), async ({ limit }) => {
      const items = await store.items({ box: "inbox", limit });
      return items.map(({ id, kind, from, title, at, size, seenAt }) => ({
        id,
        kind,
        from,
        title,
        at,
        size,
        seen: seenAt !== undefined,
      }));
    }),
    read: method(z.strictObject({ id: z.string().min(1).max(26) }), async ({ id }) => {
      const item = await store.item(id);
      const bytes = await store.bytes(item.content);
      await store.markSeen(item.id);
      return {
        id: item.id,
        kind: item.kind,
        from: item.from,
        at: item.at,
        text: item.kind === "message" ? storedText(bytes) : bytes.toString("utf8"),
      };
    }),
    queue: method(nothing, async () => outbox.receipts({ open: true })),
    contacts: method(nothing, async () => state.contacts()),
    "contacts.add": method(
      z.strictObject({ identity: person, name: z.string().max(128) }),
      async ({ identity, name }) => ({
        added: await node.addContact(parseIdentity(identity), name),
      }),
    ),
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
      z.strictObject({ pem: z.string().max(262_144), protocol: z.enum(["sip", "smtp", "ftps"]) }),
      async ({ pem, protocol }) => {
        const [leaf, ...sent] = pemToDer(pem, "CERTIFICATE").map((der) => parseCertificate(der));
        if (leaf === undefined) throw new SuiteError("syntax", "the file holds no certificate", { fault: "local" });
        return node.peerTls.explain(leaf, sent, protocol);
      },
    ),
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
