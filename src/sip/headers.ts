import { SuiteError } from "../pki/suite-error.ts";
import { parseSipUri, type SipUri } from "./uri.ts";

/** One Via value (RFC 3261 §20.42). */
export interface Via {
  transport: string;
  host: string;
  port?: number;
  parameters: ReadonlyMap<string, string | undefined>;
}

/** @throws SuiteError syntax */
export function parseVia(text: string): Via {
  const match =
    /^SIP[ \t]*\/[ \t]*2\.0[ \t]*\/[ \t]*([A-Za-z0-9-]+)[ \t]+(\[[0-9A-Fa-f:.]+\]|[A-Za-z0-9_.-]+)(?:[ \t]*:[ \t]*(\d{1,5}))?[ \t]*((?:;.*)?)$/.exec(
      text,
    );
  if (match === null) throw bad("Via");
  const [, transport = "", host = "", port, rest = ""] = match;
  return {
    transport: transport.toUpperCase(),
    host,
    parameters: parameters(rest),
    ...(port === undefined ? {} : { port: Number(port) }),
  };
}

/** From, To, Contact: a name-addr or addr-spec and its header parameters (§20.10). */
export interface NameAddr {
  display: string;
  uri: SipUri;
  uriText: string;
  parameters: ReadonlyMap<string, string | undefined>;
}

/** @throws SuiteError syntax, unsupported */
export function parseNameAddr(text: string): NameAddr {
  const angle = /^(?:"((?:[^"\\]|\\.)*)"[ \t]*|([^<"]*))<([^<>]*)>[ \t]*((?:;.*)?)$/s.exec(text);
  if (angle !== null) {
    const [, quoted, tokens = "", uriText = "", rest = ""] = angle;
    // Unquoted, a name is made of tokens; what programs write beyond ASCII is let pass.
    if (/[^A-Za-z0-9\-.!%*_+`'~ \t\u0080-\u{10ffff}]/u.test(tokens)) throw bad("display name");
    const display = quoted === undefined ? tokens.trim() : quoted.replace(/\\(.)/gs, "$1");
    return { display, uri: parseSipUri(uriText), uriText, parameters: parameters(rest) };
  }
  // Without angle brackets the parameters belong to the header field, not to the URI.
  const [uriText = "", ...rest] = text.split(";");
  if (/[<>" \t,?]/.test(uriText.trim())) throw bad("address");
  return {
    display: "",
    uri: parseSipUri(uriText.trim()),
    uriText: uriText.trim(),
    parameters: parameters(rest.map((one) => `;${one}`).join("")),
  };
}

/** A list of `name=value` pairs behind a scheme, as in Authorization (§25.1). Values lose their quotes. */
export function parseAuthParameters(text: string): { scheme: string; parameters: ReadonlyMap<string, string> } {
  const match = /^([A-Za-z0-9-]+)[ \t]+(.*)$/s.exec(text);
  if (match === null) throw bad("credentials");
  const map = new Map<string, string>();
  for (const pair of (match[2] ?? "").matchAll(
    /(?<![A-Za-z0-9_-])([A-Za-z0-9_-]+)[ \t]*=[ \t]*(?:"((?:[^"\\]|\\.)*)"|([^\s,"]+))/g,
  )) {
    map.set((pair[1] ?? "").toLowerCase(), pair[2] === undefined ? (pair[3] ?? "") : pair[2].replace(/\\(.)/g, "$1"));
  }
  return { scheme: (match[1] ?? "").toLowerCase(), parameters: map };
}

/** `;name` and `;name=value` to the end of the text, and nothing else. */
function parameters(text: string): Map<string, string | undefined> {
  const map = new Map<string, string | undefined>();
  const one = /;[ \t]*([^\s;,="<>?]+)[ \t]*(?:=[ \t]*("(?:[^"\\]|\\.)*"|[^\s;,"<>]*)[ \t]*)?/sy;
  while (one.lastIndex < text.length) {
    const match = one.exec(text);
    if (match === null || map.size >= MAX_PARAMETERS) throw bad("parameters");
    map.set((match[1] ?? "").toLowerCase(), match[2]?.replace(/^"|"$/g, ""));
  }
  return map;
}

const MAX_PARAMETERS = 64;

function bad(what: string): SuiteError {
  return new SuiteError("syntax", "a header field is malformed", { fault: "peer", details: { what } });
}
