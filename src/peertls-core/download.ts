import { lookup } from "node:dns";
import { type IncomingMessage, request as requestHttp } from "node:http";
import { request as requestHttps } from "node:https";
import type { LookupFunction } from "node:net";
import { SuiteError } from "../pki/suite-error.ts";
import { isGlobal } from "./routes.ts";

export interface DownloadLimits {
  maxBytes: number;
  seconds: number;
  redirects: number;
  /** What all downloads together may hold in memory at once; one more than fits is to come later. */
  room?: Room;
  /** Whether addresses of this machine and of private networks may be asked: a URL in a certificate is a stranger's wish. */
  privateTargets: boolean;
}

/** Octets that may still be taken. */
export interface Room {
  octets: number;
}

/**
 * Fetches one thing over http or https: revocation lists and OCSP answers, which are signed themselves.
 * @param body sent by POST, with its media type
 * @throws SuiteError unreachable (temporary), limit-exceeded, forbidden for an address that may not be asked, unsupported
 */
export async function download(
  url: string,
  limits: DownloadLimits,
  signal: AbortSignal,
  body?: { type: string; bytes: Buffer },
): Promise<Buffer> {
  const until = AbortSignal.any([signal, AbortSignal.timeout(limits.seconds * 1000)]);
  let at = parsed(url);
  for (let hops = 0; hops <= limits.redirects; hops += 1) {
    const response = await ask(at, limits, until, body);
    const { statusCode = 0, headers } = response;
    if (statusCode >= 300 && statusCode < 400 && headers.location !== undefined) {
      response.destroy(); // what else it says is nothing to us, and may have no end
      at = parsed(headers.location, at);
      continue;
    }
    if (statusCode !== 200) {
      response.destroy();
      throw unreachable(at, undefined, { status: statusCode });
    }
    return bodyOf(response, at, limits);
  }
  throw unreachable(at, undefined, { redirects: limits.redirects });
}

function parsed(text: string, base?: URL): URL {
  const url = URL.canParse(text, base) ? new URL(text, base) : undefined;
  if (url === undefined || (url.protocol !== "http:" && url.protocol !== "https:"))
    throw new SuiteError("unsupported", "only http and https URLs are fetched", { fault: "peer" });
  return url;
}

function ask(
  url: URL,
  limits: DownloadLimits,
  signal: AbortSignal,
  body: { type: string; bytes: Buffer } | undefined,
): Promise<IncomingMessage> {
  return new Promise((resolve, reject) => {
    const options = {
      method: body === undefined ? "GET" : "POST",
      lookup: limits.privateTargets ? lookup : globalLookup,
      agent: false as const,
      signal,
      ...(body === undefined ? {} : { headers: { "content-type": body.type, "content-length": body.bytes.length } }),
    };
    // A literal address is not looked up, so it is looked at here.
    const literal = url.hostname.replace(/^\[|\]$/g, "");
    if (!limits.privateTargets && /^[\d.]+$|:/.test(literal) && !isGlobal(literal)) return reject(refused(literal));
    const request = (url.protocol === "https:" ? requestHttps : requestHttp)(url, options, resolve);
    request.on("error", (cause) => reject(cause instanceof SuiteError ? cause : unreachable(url, cause)));
    request.on("close", () => reject(unreachable(url))); // after a 101 nothing else tells; without effect behind a response
    if (body !== undefined) request.write(body.bytes);
    request.end();
  });
}

function bodyOf(response: IncomingMessage, url: URL, { maxBytes, room }: DownloadLimits): Promise<Buffer> {
  const parts: Buffer[] = [];
  let size = 0;
  return new Promise<Buffer>((resolve, reject) => {
    const refuse = (message: string, options: { temporary: boolean; details?: { maxBytes: number } }) => {
      response.destroy();
      reject(new SuiteError("limit-exceeded", message, { fault: "service", ...options }));
    };
    response.on("error", (cause) => reject(unreachable(url, cause)));
    response.on("data", (chunk: Buffer) => {
      size += chunk.length;
      if (room !== undefined) room.octets -= chunk.length;
      if (size > maxBytes) refuse("what the URL leads to is too large", { temporary: false, details: { maxBytes } });
      else if (room !== undefined && room.octets < 0) refuse("too much is fetched at once", { temporary: true });
      else parts.push(chunk);
    });
    response.on("close", () => reject(unreachable(url))); // without effect behind the end
    response.on("end", () => {
      if (response.complete) resolve(Buffer.concat(parts));
      else reject(unreachable(url));
    });
  }).finally(() => {
    response.removeAllListeners("data");
    if (room !== undefined) room.octets += size;
  });
}

/** Resolves names to global addresses alone, and hands on the very address that was looked at. */
const globalLookup: LookupFunction = (hostname, options, done) => {
  lookup(hostname, { ...options, all: true }, (error, addresses) => {
    if (error !== null) return done(error, "");
    const allowed = addresses.filter(({ address }) => isGlobal(address));
    const [first] = allowed;
    if (first === undefined) return done(refused(hostname) as NodeJS.ErrnoException, "");
    if (options.all === true) done(null, allowed);
    else done(null, first.address, first.family);
  });
};

function refused(host: string): SuiteError {
  return new SuiteError("forbidden", "an address of a private network is not asked", {
    fault: "peer",
    details: { host },
  });
}

function unreachable(url: URL, cause?: unknown, details: Record<string, number> = {}): SuiteError {
  return new SuiteError("unreachable", "the URL cannot be fetched", {
    fault: "service",
    temporary: true,
    details: { host: url.host, ...details },
    ...(cause === undefined ? {} : { cause }),
  });
}
