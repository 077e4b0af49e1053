import type { Identity } from "../../pki/identity.ts";
import type { LookupKey } from "../lookup-key.ts";
import type { RecordReply } from "../records.ts";
import type { Found, StoredAlias, StoredDevice } from "../store/store.ts";

/** How near somebody who asks is to whom he asks about. */
export type Standing = "anonymous" | "authenticated" | "contact" | "owner";

const MAX_AGE_SECONDS = 60;

/** @param asker who proved who he is, or in whose name a domain asks */
export function standingOf(asker: Identity | undefined, found: Pick<Found, "identity" | "contact">): Standing {
  if (asker === undefined) return "anonymous";
  if (asker === found.identity) return "owner";
  return found.contact ? "contact" : "authenticated";
}

/**
 * What of a record is to be seen from there. What is not to be seen is left out as if it did not exist; undefined: nothing.
 * @param asked by what it was found: that alias is told
 */
export function visibleReply(found: Found, standing: Standing, asked?: LookupKey): RecordReply | undefined {
  const { visibility, record } = found;
  if (found.status !== "active" || !sees(standing, visibility.certificates)) return undefined;
  const addresses = sees(standing, visibility.addresses);
  const presence = sees(standing, visibility.presence);
  const near = standing === "contact" || standing === "owner";
  const reply: RecordReply = {
    identity: record.identity,
    devices: visibleDevices(record.devices, addresses, presence),
    maxAge: MAX_AGE_SECONDS,
    visibleTo:
      near || visibility.addresses === "contacts" || visibility.presence === "contacts" ? "caller" : "authenticated",
  };
  if (found.aliases.length > 0) {
    const aliases = found.aliases.filter((alias) => near || isAsked(alias, asked));
    if (aliases.length > 0) reply.aliases = aliases.map(({ salt, kind, value }) => [salt, kind, value]);
  }
  return reply;
}

function sees(standing: Standing, level: "public" | "authenticated" | "contacts"): boolean {
  if (level === "public") return true;
  return level === "authenticated" ? standing !== "anonymous" : standing === "contact" || standing === "owner";
}

/** When a device was last heard of tells what its addresses tell. */
function visibleDevices(
  devices: readonly StoredDevice[],
  addresses: boolean,
  presence: boolean,
): RecordReply["devices"] {
  const visible: RecordReply["devices"] = {};
  for (const device of devices) {
    const told: RecordReply["devices"][string] = {};
    if (addresses && device.addresses !== undefined) told.addresses = device.addresses;
    if (presence && device.presence !== undefined) told.presence = device.presence;
    if (addresses && device.seen !== undefined) told.seen = device.seen;
    if (told.addresses ?? told.presence ?? told.seen) visible[device.fingerprint] = told;
  }
  return visible;
}

function isAsked({ kind, value, verified }: StoredAlias, asked: LookupKey | undefined): boolean {
  return verified !== "none" && asked?.kind === kind && asked.value === value;
}
