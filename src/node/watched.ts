import type { PeerConnection } from "../peertls-core/connection.ts";
import type { Identity } from "../pki/identity.ts";
import type { PeerRecord } from "../sixid/directory.ts";
import type { PeerNode } from "./node.ts";

/** Whose moves matter now: those for whom something waits, and the contacts. */
export async function watchedPeople({ outbox, state }: PeerNode): Promise<readonly Identity[]> {
  const waiting = await outbox.receipts({ open: true });
  return [...waiting.map(({ to }) => to), ...state.contacts().map(({ identity }) => identity)];
}

/**
 * Ends what we dialled to an address at which a person's device is not any more, and every connection of a device that is
 * not his any more: TCP would not tell for minutes.
 */
export function endMoved(connections: readonly PeerConnection[], { identity, devices }: PeerRecord): void {
  for (const connection of connections) {
    if (connection.identity !== identity) continue;
    const device = devices.find(({ fingerprint }) => fingerprint === connection.fingerprint);
    const { host, port } = connection.address;
    const left =
      connection.direction === "out" &&
      device !== undefined &&
      !device.addresses.some((one) => one.host === host && one.port === port);
    if (device === undefined || left) connection.destroy();
  }
}
