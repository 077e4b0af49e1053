import type { Expected } from "../peertls-core/door.ts";
import type { Route } from "../peertls-core/routes.ts";
import { asSuiteError, SuiteError } from "../pki/suite-error.ts";
import type { PeerDevice, PeerRecord } from "../sixid/directory.ts";

/**
 * Tries a person's devices in the order of his record until one attempt succeeds.
 * @throws SuiteError that of the last attempt; unreachable when the record lists no device
 */
export async function firstDevice(
  to: PeerRecord,
  signal: AbortSignal,
  attempt: (device: PeerDevice) => Promise<void>,
): Promise<void> {
  let failure = new SuiteError("unreachable", "the record lists no device that can be dialled", {
    fault: "peer",
    temporary: true,
  });
  for (const device of to.devices) {
    try {
      return await attempt(device);
    } catch (error) {
      failure = asSuiteError(error);
      if (signal.aborted) break;
    }
  }
  throw failure;
}

/** Whom to expect at a device, and where it can be dialled: what `PeerTls.dial` asks for. */
export function wayTo(device: PeerDevice, to: PeerRecord): { expected: Expected; routes: Route[] } {
  return {
    expected: { identity: to.identity, fingerprints: [device.fingerprint], intermediates: to.chain },
    routes: device.addresses.map(({ host, port }) => ({ kind: "direct", address: { host, port } })),
  };
}
