import { listenLocal } from "../peertls-core/loopback.ts";

/** The port, if it is free at that address, else one that the system chooses and that was free a moment ago. */
export async function freePort(host: string, wanted: number): Promise<number> {
  const { port } = (await bound(host, wanted)) ?? (await bound(host, 0)) ?? { port: wanted };
  return port;
}

/** Whether an address of this machine can be listened on. */
export async function canListen(host: string): Promise<boolean> {
  return (await bound(host, 0)) !== undefined;
}

async function bound(host: string, port: number): Promise<{ port: number } | undefined> {
  try {
    const listener = await listenLocal({ host, port }, (socket) => socket.destroy());
    await listener.close();
    return listener.address;
  } catch {
    return undefined;
  }
}
