import { statfs } from "node:fs/promises";
import { identityDomain } from "../pki/identity.ts";
import { validatePath } from "../pki/path.ts";
import { asSuiteError } from "../pki/suite-error.ts";
import type { PeerNode } from "./node.ts";

export interface Finding {
  what: string;
  /** `problem` keeps something from working; `notice` will, or may. */
  state: "ok" | "notice" | "problem";
  detail: string;
}

const DAY_MS = 86_400_000;
const MAX_SKEW_MS = 300_000;

/** Looks at all that has to be right for people to reach each other. */
export async function examine(node: PeerNode, now: Date, signal: AbortSignal): Promise<Finding[]> {
  return [
    gate(node),
    ...certificates(node, now),
    chain(node, now),
    await clock(node, now, signal),
    announced(node),
    ...lists(node, now),
    await disk(node),
  ];
}

function gate({ peerTls }: PeerNode): Finding {
  const { failed } = peerTls.selfTest;
  const what = "the gate's self-test";
  if (failed.length === 0) return { what, state: "ok", detail: `passed; refusals are TLS alerts (${process.version})` };
  return { what, state: "problem", detail: `failed: ${failed.join(", ")}` };
}

function certificates({ keys }: PeerNode, now: Date): Finding[] {
  const named = [
    { what: "own certificate (AUTH)", certificate: keys.auth.certificate },
    ...(keys.encryption[0] === undefined
      ? []
      : [{ what: "own certificate (ENCRYPTION)", certificate: keys.encryption[0].certificate }]),
  ];
  return named.map(({ what, certificate }) => {
    const { notBefore, notAfter } = certificate.validity;
    const days = Math.floor((notAfter.getTime() - now.getTime()) / DAY_MS);
    if (now < notBefore) return { what, state: "problem", detail: `not valid before ${notBefore.toISOString()}` };
    if (days < 0) return { what, state: "problem", detail: `ended ${notAfter.toISOString()}` };
    return {
      what,
      state: days < 5 ? "notice" : "ok",
      detail: `valid for ${days} days, until ${notAfter.toISOString()}`,
    };
  });
}

function chain(node: PeerNode, now: Date): Finding {
  const what = "own certificate's path";
  const domain = identityDomain(node.identity);
  const { certificate, chain: candidates } = node.keys.auth;
  const result = validatePath({
    leaf: certificate,
    candidates,
    anchors: node.anchorsFor(domain),
    time: now,
    purpose: "peer",
  });
  return result.ok
    ? { what, state: "ok", detail: `leads to ${result.anchor.name} in ${result.path.length - 1} steps` }
    : { what, state: "problem", detail: `does not hold: ${result.reason}` };
}

async function clock(node: PeerNode, now: Date, signal: AbortSignal): Promise<Finding> {
  const what = "directory and clock";
  try {
    const theirs = await node.directory.time(signal);
    const skew = now.getTime() - theirs.getTime();
    if (Math.abs(skew) <= MAX_SKEW_MS) return { what, state: "ok", detail: "the directory answers; the clocks agree" };
    return { what, state: "problem", detail: `this clock is ${Math.round(skew / 1000)} s off the directory's` };
  } catch (error) {
    return { what, state: "problem", detail: `the directory does not answer: ${asSuiteError(error).message}` };
  }
}

function announced({ announcer, ports }: PeerNode): Finding {
  const what = "announced addresses";
  const { announced } = announcer;
  if (announced.length === 0) return { what, state: "problem", detail: "none: nobody can find this node" };
  const text = announced.map(({ host }) => host).join(", ");
  return { what, state: "ok", detail: `${text}, port ${ports.peer.port}` };
}

function lists({ revocations }: PeerNode, now: Date): Finding[] {
  return revocations.sources.map(({ url, entries, failures, nextUpdate }) => {
    const what = `revocation list ${url}`;
    if (nextUpdate !== undefined && nextUpdate < now)
      return { what, state: "problem", detail: `out of date since ${nextUpdate.toISOString()}` };
    if (failures > 0) return { what, state: "notice", detail: `could not be fetched ${failures} times` };
    return { what, state: "ok", detail: `${entries} entries, good until ${nextUpdate?.toISOString() ?? "?"}` };
  });
}

async function disk({ home }: PeerNode): Promise<Finding> {
  const { bavail, bsize } = await statfs(home.directory);
  const free = bavail * bsize;
  const detail = `${(free / 1e9).toFixed(1)} GB free`;
  return { what: "disk", state: free < 1e9 ? "notice" : "ok", detail };
}
