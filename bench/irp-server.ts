// The OCSP responder of bench/irp.ts, a process of its own: `node bench/irp-server.ts DIRECTORY`. Prints its port.

import { randomBytes } from "node:crypto";
import { join } from "node:path";
import { CertificateAuthority } from "../src/irp/ca.ts";
import { openCa } from "../src/irp/ca-keys.ts";
import { answerStatus } from "../src/irp/status-http.ts";
import { listenPlainHttp } from "../src/peertls-core/plain-http.ts";

const [folder = ""] = process.argv.slice(2);
const clock = () => new Date();
const keys = openCa({ directory: join(folder, "ca"), domain: "bench.test", now: clock(), random: randomBytes });
const authority = new CertificateAuthority({ keys, register: join(folder, "ca.db"), clock, random: randomBytes });
const listener = await listenPlainHttp({ host: "127.0.0.1", port: 0 }, (request) =>
  answerStatus(request, { authority, fault: () => undefined, clock }),
);
process.stdout.write(`${listener.address.port}\n`);
