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
  const parts = { addresses: sees(standing, visibility.addresses), presence: sees(standing, visibility.presence) };
  const devices: RecordReply["devices"] = {};
  for (const device of record.devices) {
    const told = visibleDevice(device, parts);
    if (told !== undefined) devices[device.fingerprint] = told;
  }
  const near = standing === "contact" || standing === "owner";
  const aliases = found.aliases.filter((alias) => near || isAsked(alias, asked));
  return {
    identity: record.identity,
    devices,
    ...(aliases.length === 0 ? {} : { aliases: aliases.map(({ salt, kind, value }) => [salt, kind, value]) }),
    maxAge: MAX_AGE_SECONDS,
    visibleTo: near || Object.values(visibility).includes("contacts") ? "caller" : publicly(found),
  };
}

function sees(standing: Standing, level: "public" | "authenticated" | "contacts"): boolean {
  if (level === "public") return true;
  return level === "authenticated" ? standing !== "anonymous" : standing === "contact" || standing === "owner";
}

/** When a device was last heard of tells what its addresses tell. */
function visibleDevice(
  { addresses, presence, seen }: StoredDevice,
  see: { addresses: boolean; presence: boolean },
): RecordReply["devices"][string] | undefined {
  const told = {
    ...(see.addresses && addresses !== undefined ? { addresses } : {}),
    ...(see.presence && presence !== undefined ? { presence } : {}),
    ...(see.addresses && seen !== undefined ? { seen } : {}),
  };
  return Object.keys(told).length === 0 ? undefined : told;
}

function isAsked({ kind, value, verified }: StoredAlias, asked: LookupKey | undefined): boolean {
  return verified !== "none" && asked?.kind === kind && asked.value === value;
}

function publicly({ visibility }: Found): "public" | "authenticated" {
  return visibility.certificates === "public" && visibility.addresses === "public" ? "public" : "authenticated";
}
