import { SuiteError } from "../pki/suite-error.ts";
import { type SipHeader, type SipRequest, values } from "./grammar.ts";
import { parseSipUri } from "./uri.ts";

/** What any server looks at once it knows the method (RFC 3261 §8.2.2): the Request-URI's scheme, then Require. */
export function precondition(
  request: SipRequest,
): { status: number; reason: string; extra: readonly SipHeader[] } | undefined {
  try {
    parseSipUri(request.uri);
  } catch (error) {
    if (!(error instanceof SuiteError) || error.code !== "unsupported") throw error;
    return { status: 416, reason: "Unsupported URI Scheme", extra: [] };
  }
  const required = values(request.headers, "require");
  if (required.length === 0) return undefined;
  return { status: 420, reason: "Bad Extension", extra: [{ name: "unsupported", value: required.join(", ") }] };
}
