import type { Credentials } from "../peertls-core/credentials.ts";
import { type HttpsClient, httpsClient } from "../peertls-core/https-client.ts";
import { webAnchors } from "../peertls-core/web-anchors.ts";
import type { KnownDomain } from "../sixid/client.ts";
import type { Locator } from "../sixid/locate.ts";

/** Calls other domains' servers, with the own certificate. */
export function otherDirectories(o: {
  locator: Pick<Locator, "servers">;
  credentials: () => Credentials;
  clock: () => Date;
}): (domain: KnownDomain) => HttpsClient {
  return ({ domain, at, anchors }) =>
    httpsClient({
      addresses: () => (at === undefined ? o.locator.servers("sixid", domain) : [at]),
      serverName: domain,
      // Whom the own server did not find by its configuration proves itself to us as to it.
      anchors: () => (at === undefined ? webAnchors() : anchors.map((certificate) => ({ name: domain, certificate }))),
      credentials: o.credentials,
      clock: o.clock,
    });
}
