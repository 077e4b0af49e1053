import { randomInt } from "node:crypto";
import { listenLocal } from "../peertls-core/loopback.ts";

/** Ports that no system gives to outgoing connections by itself: those, once written down, may be taken at the next start. */
const LASTING = [10_000, 32_768] as const;
const TRIES = 50;

/**
 * The port, if it is free at that address, else another that was free a moment ago and is likely to be so later.
 * @param wanted 0: any
 */
export async function freePort(host: string, wanted: number): Promise<number> {
  for (let n = 0, port = wanted; n < TRIES; n += 1, port = randomInt(...LASTING))
    if (port !== 0 && (await canListen(host, port))) return port;
  return wanted;
}

/** Whether an address of this machine can be listened on. */
export async function canListen(host: string, port = 0): Promise<boolean> {
  try {
    const listener = await listenLocal({ host, port }, (socket) => socket.destroy());
    await listener.close();
    return true;
  } catch {
    return false;
  }
}
