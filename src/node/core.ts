import { randomBytes } from "node:crypto";
import { join } from "node:path";
import { Registry } from "prom-client";
import type { PeerConnection } from "../peertls-core/connection.ts";
import type { Denial } from "../peertls-core/door.ts";
import { makePeerTls, type PeerTls } from "../peertls-core/peertls.ts";
import type { TrustConfig } from "../peertls-core/policy-schema.ts";
import type { RequestSink } from "../peertls-core/request-intake.ts";
import { Revocations } from "../peertls-core/revocation.ts";
import { mayDial } from "../peertls-core/routes.ts";
import { Trust } from "../peertls-core/trust.ts";
import type { Log } from "../pki/log.ts";
import { PeerHistory } from "./history.ts";
import type { Home } from "./home.ts";
import type { OwnKeys } from "./keys.ts";
import { Recently } from "./recently.ts";

/** The gate and what it knows. */
export interface Core {
  peerTls: PeerTls;
  trust: Trust;
  revocations: Revocations;
  registry: Registry;
  history: PeerHistory;
  close(): Promise<void>;
}

export interface CoreOptions {
  home: Home;
  trust: TrustConfig;
  keys: OwnKeys;
  clock: () => Date;
  log: Log;
  /** Told of denials, but of one and the same not more often than once a minute, and of few a minute in all. */
  onDenied: (denial: Denial) => void;
  requestSink?: RequestSink;
  /** Private networks whose addresses are dialled, if a record names them. */
  dialRanges: readonly string[];
}

/** Puts the gate together: nobody is trusted yet, nothing listens yet. */
export async function openCore(o: CoreOptions): Promise<Core> {
  const { home, clock, log } = o;
  await using opened = new AsyncDisposableStack(); // what is open already is closed if the rest cannot be
  const trust = new Trust({
    anchors: [],
    block: [],
    allow: [],
    rules: [],
    otherwise: "deny",
    contacts: [],
    requestsOnPort: false,
  });
  const ofAnchor = (anchor: string) => {
    const { graceHours = 24, lists = [] } = trust.policy.anchors.find(({ name }) => name === anchor)?.revocation ?? {};
    return { graceHours, lists };
  };
  const revocations = await Revocations.open({
    directory: join(home.directory, "revocation"),
    ofAnchor,
    privateTargets: o.trust.revocation.privateTargets,
    clock,
    chance: () => randomBytes(4).readUInt32BE() / 2 ** 32,
    random: randomBytes,
    log,
  });
  opened.defer(() => revocations.close());
  const history = new PeerHistory(join(home.directory, "history.db"), log);
  opened.defer(() => history.close());
  const registry = new Registry();
  const recently = new Recently();
  const peerTls = await makePeerTls({
    credentials: o.keys.auth,
    trust,
    revocations,
    registry,
    clock,
    random: randomBytes,
    log,
    onDenied: (denial) => {
      history.note(pastDenial(denial));
      const who = denial.certificate?.fingerprint ?? denial.address.host;
      if (recently.isNew(`${who} ${denial.reason} ${denial.direction}`, performance.now())) o.onDenied(denial);
    },
    mayDial: mayDial(o.dialRanges),
    ...(o.requestSink === undefined ? {} : { requestSink: o.requestSink }),
  });
  opened.defer(() => peerTls.close());
  peerTls.onConnected((connection) => history.note(pastAdmission(connection, trust, clock())));
  const running = opened.move();
  return { peerTls, trust, revocations, registry, history, close: () => running.disposeAsync() };
}

function pastDenial(denial: Denial) {
  const { at, direction, protocol = "request", address, certificate, sent = [], reason } = denial;
  return {
    outcome: "denied" as const,
    at,
    direction,
    protocol,
    address,
    claims: certificate?.identities.map(({ identity }) => identity) ?? [],
    why: reason,
    certificates: certificate === undefined ? [] : [certificate.certificate, ...sent],
  };
}

function pastAdmission(connection: PeerConnection, trust: Trust, at: Date) {
  const { direction, protocol, address, certificate, admittedBy } = connection;
  const path = trust.paths.find(certificate.certificate, [], at);
  return {
    outcome: "admitted" as const,
    at,
    direction,
    protocol,
    address,
    claims: certificate.identities.map(({ identity }) => identity),
    why: admittedBy,
    certificates: [certificate.certificate, ...(path.ok ? path.path.slice(1, -1) : [])],
  };
}
