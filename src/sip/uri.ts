import { SuiteError } from "../pki/suite-error.ts";

/** A SIP or SIPS URI (RFC 3261 §19.1.1). User and parameter values are unescaped; `host` is lower case, IPv6 in brackets. */
export interface SipUri {
  scheme: "sip" | "sips";
  user?: string;
  host: string;
  port?: number;
  parameters: ReadonlyMap<string, string>;
  /** What stands behind `?`, as written: header fields for a request that would be made of the URI. Never used. */
  headers?: string;
}

const MAX_URI = 4_096;

/** @throws SuiteError syntax; unsupported for another scheme */
export function parseSipUri(text: string): SipUri {
  if (text.length > MAX_URI) throw bad("too long");
  const scheme = /^([A-Za-z][A-Za-z0-9+.-]*):/.exec(text)?.[1]?.toLowerCase();
  if (scheme === undefined) throw bad("no scheme");
  if (scheme !== "sip" && scheme !== "sips")
    throw new SuiteError("unsupported", "this URI scheme is not supported", { fault: "peer" });
  const match = /^(?:([^@]*)@)?(\[[0-9A-Fa-f:.]+\]|[A-Za-z0-9_.-]+)(?::(\d{1,5}))?((?:;[^?]*)?)(\?.*)?$/.exec(
    text.slice(scheme.length + 1),
  );
  if (match === null) throw bad("form");
  const [, userinfo, host = "", port, parameters = "", headers] = match;
  if (port !== undefined && Number(port) > 65_535) throw bad("port");
  if (headers !== undefined && !/^\?(?:[A-Za-z0-9\-_.!~*'()[\]/?:+$&=]|%[0-9A-Fa-f]{2})+$/.test(headers))
    throw bad("headers");
  if (userinfo !== undefined && !/^(?:[A-Za-z0-9\-_.!~*'()&=+$,;?/:]|%[0-9A-Fa-f]{2})+$/.test(userinfo))
    throw bad("user");
  const user = userinfo === undefined ? undefined : unescaped(userinfo.split(":")[0] ?? "");
  return {
    scheme,
    host: host.toLowerCase(),
    parameters: parameterMap(parameters),
    ...(user === undefined ? {} : { user }),
    ...(port === undefined ? {} : { port: Number(port) }),
    ...(headers === undefined ? {} : { headers: headers.slice(1) }),
  };
}

/** `user@host` of an address of record, as the text that `parseIdentity` takes; undefined without a user. */
export function addressOfRecord(uri: SipUri): string | undefined {
  return uri.user === undefined ? undefined : `${uri.user}@${uri.host}`;
}

/** The address of record of an identity, with what a URI may not hold escaped. */
export function sipUriOf(identity: string): string {
  const at = identity.lastIndexOf("@");
  const user = identity.slice(0, at).replace(/[^A-Za-z0-9\-_.!~*'()&=+$,?/]/gu, (one) => encodeURIComponent(one));
  return `sip:${user}@${identity.slice(at + 1)}`;
}

function parameterMap(text: string): Map<string, string> {
  const map = new Map<string, string>();
  for (const part of text.split(";").slice(1)) {
    if (
      !/^(?:[A-Za-z0-9\-_.!~*'()[\]/:&+$]|%[0-9A-Fa-f]{2})+(?:=(?:[A-Za-z0-9\-_.!~*'()[\]/:&+$]|%[0-9A-Fa-f]{2})*)?$/.test(
        part,
      )
    )
      throw bad("parameter");
    const [name = "", value = ""] = part.split("=", 2);
    map.set(unescaped(name).toLowerCase(), unescaped(value));
  }
  return map;
}

/** Once, and only once (§19.1.4): `%2525` is `%25`. */
function unescaped(text: string): string {
  try {
    return decodeURIComponent(text);
  } catch (cause) {
    throw bad("escape", cause);
  }
}

function bad(why: string, cause?: unknown): SuiteError {
  return new SuiteError("syntax", "not a SIP URI", {
    fault: "peer",
    details: { why },
    ...(cause === undefined ? {} : { cause }),
  });
}
