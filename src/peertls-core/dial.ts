import { connect, type Socket } from "node:net";
import { asSuiteError, SuiteError, type SuiteErrorCode } from "../pki/suite-error.ts";
import type { PeerAddress } from "./connection.ts";
import { orderRoutes, type Route } from "./routes.ts";

const STAGGER_MS = 250;
const TCP_MS = 10_000;
const ALL_MS = 30_000;

/** Of several failures the first of these is told: what says most about the person, before what says most about a way. */
const WORST_FIRST: readonly SuiteErrorCode[] = [
  "refused-by-policy",
  "identity-mismatch",
  "certificate-invalid",
  "refused-by-peer",
  "handshake-failed",
  "unreachable",
];

/**
 * Tries routes in order, the next one 250 ms after the one before or as soon as it failed. None is given up until one
 * is *admitted*: an old address may be somebody else's by now.
 * @param enter TLS and the gate over a connected socket
 * @throws SuiteError of the most telling failure; `cancelled` when the signal fires
 */
export async function race<T>(
  routes: readonly Route[],
  enter: (socket: Socket, route: Route, signal: AbortSignal) => Promise<T>,
  discard: (late: T) => void,
  signal: AbortSignal,
): Promise<T> {
  return raceInOrder(orderRoutes(routes), enter, discard, signal);
}

/** As `race`, in the order given. `staggerMs`: how long one is waited for before the next is tried beside it. */
export async function raceInOrder<R extends { readonly address: PeerAddress }, T>(
  ordered: readonly R[],
  enter: (socket: Socket, route: R, signal: AbortSignal) => Promise<T>,
  discard: (late: T) => void,
  signal: AbortSignal,
  staggerMs = STAGGER_MS,
): Promise<T> {
  if (ordered.length === 0)
    throw new SuiteError("unreachable", "no usable address is known", { fault: "peer", temporary: true });
  const over = new AbortController();
  const until = AbortSignal.any([signal, over.signal, AbortSignal.timeout(ALL_MS)]);
  const failures: SuiteError[] = [];
  let won = false;

  return new Promise<T>((resolve, reject) => {
    let next = 0;
    let running = 0;
    let timer: NodeJS.Timeout | undefined;
    const finish = () => {
      clearTimeout(timer);
      until.removeEventListener("abort", onAbort);
    };
    const onAbort = () => {
      if (won) return;
      finish();
      over.abort();
      reject(signal.aborted ? cancelled() : worst(failures));
    };
    until.addEventListener("abort", onAbort);
    const start = () => {
      clearTimeout(timer);
      const route = ordered[next++];
      if (route === undefined || won) return;
      running += 1;
      timer = setTimeout(start, staggerMs);
      openTcp(route.address, until)
        .then((socket) => enter(socket, route, until))
        .then(
          (entered) => {
            if (won) {
              discard(entered);
              return;
            }
            won = true;
            finish();
            over.abort();
            resolve(entered);
          },
          (thrown: unknown) => {
            running -= 1;
            failures.push(asSuiteError(thrown));
            if (won || until.aborted) return;
            if (next < ordered.length) start();
            else if (running === 0) {
              finish();
              reject(worst(failures));
            }
          },
        );
    };
    if (until.aborted) onAbort();
    else start();
  });
}

/** @throws SuiteError unreachable, cancelled */
export function openTcp(address: PeerAddress, signal: AbortSignal): Promise<Socket> {
  return new Promise((resolve, reject) => {
    const socket = connect({ host: address.host, port: address.port });
    const fail = (cause?: unknown) => {
      clearTimeout(timer);
      signal.removeEventListener("abort", abort);
      socket.destroy();
      reject(
        signal.aborted
          ? cancelled()
          : new SuiteError("unreachable", "the peer cannot be reached", {
              fault: "peer",
              temporary: true,
              cause,
              details: { ...address },
            }),
      );
    };
    const abort = () => fail();
    const timer = setTimeout(fail, TCP_MS);
    socket.once("error", fail);
    if (signal.aborted) return fail();
    signal.addEventListener("abort", abort, { once: true });
    socket.once("connect", () => {
      clearTimeout(timer);
      signal.removeEventListener("abort", abort);
      socket.off("error", fail);
      resolve(socket);
    });
  });
}

function cancelled(): SuiteError {
  return new SuiteError("cancelled", "the dial was given up", { fault: "local", temporary: true });
}

function worst(failures: readonly SuiteError[]): SuiteError {
  for (const code of WORST_FIRST) {
    const failure = failures.find((one) => one.code === code);
    if (failure !== undefined) return failure;
  }
  return (
    failures[0] ??
    new SuiteError("unreachable", "the peer cannot be reached in time", { fault: "peer", temporary: true })
  );
}
