import type { ErrorCode, Request } from "./messages.ts";

/** Where a server's session is (irp.md §2.2). */
export type SessionState = "plain" | "tls" | "ready";

export type Ruling = { allowed: true } | { allowed: false; code: ErrorCode; close: boolean };

const ALLOWED: Readonly<Record<SessionState, readonly Request["type"][] | "all">> = {
  plain: ["hello", "starttls"],
  tls: ["hello", "auth", "cacerts", "crl"],
  ready: "all",
};

/** How long a session may stay without getting on, in seconds, and how many frames it may send in clear. */
export const SECONDS: Readonly<Record<SessionState, number>> = { plain: 10, tls: 30, ready: 600 };
export const MAX_PLAIN_FRAMES = 3;
export const MAX_AUTH_FAILURES = 5;

/** Whether a request fits the state. Pure. */
export function ruling(state: SessionState, type: Request["type"]): Ruling {
  const allowed = ALLOWED[state];
  if (state !== "plain" && type === "starttls") return { allowed: false, code: "bad-xml", close: true };
  if (allowed === "all" || allowed.includes(type)) return { allowed: true };
  if (state === "plain") return { allowed: false, code: "tls-required", close: true };
  return { allowed: false, code: "auth-required", close: false };
}
