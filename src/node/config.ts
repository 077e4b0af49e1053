import { existsSync, readFileSync } from "node:fs";
import { dirname, resolve } from "node:path";
import { LineCounter, parseDocument } from "yaml";
import { z } from "zod";
import { trustSchema } from "../peertls-core/policy-schema.ts";
import { parseRange } from "../peertls-core/routes.ts";
import { isIdentity } from "../pki/identity.ts";
import { SuiteError } from "../pki/suite-error.ts";
import { absoluteCa, absoluteSecret, caSchema, secretFile } from "./ca-config.ts";

const port = z.number().int().min(0).max(65_535);
const host = z.string().min(2).describe("IP address, without brackets");
const anchorFile = z.string().min(1).describe("PEM file with the root certificate, relative to this file");

const peer = z.strictObject({
  identity: z.string().refine(isIdentity, { message: "not user@domain" }).describe("user@domain, as enrolled"),
  name: z.string().min(1).describe("full name, as others see it"),
  listen: z
    .strictObject({ host: host.default("::"), port: port.default(4605) })
    .default({ host: "::", port: 4605 })
    .describe("the one peer port"),
  classic: z
    .strictObject({
      sips: port.optional().describe("SIP over TLS; 5061 is customary"),
      smtps: port.optional().describe("SMTP over TLS; 465 is customary, and needs the right to open it"),
    })
    .default({})
    .describe(
      "ports of one protocol each beside the peer port, on the same address and with the same gate; absent: none",
    ),
  announce: z
    .strictObject({
      addresses: z.array(host).default([]).describe("announced as they stand; empty: this machine's global addresses"),
      allowNonGlobal: z
        .boolean()
        .default(false)
        .describe("also loopback and private addresses: for one machine or one house"),
    })
    .default({ addresses: [], allowNonGlobal: false }),
  dial: z
    .strictObject({
      allowRanges: z
        .array(z.string().refine(isRange, { message: "no range of addresses, as 10.0.0.0/8" }))
        .default([])
        .describe("private networks that are dialled if a person's record names them; with allowNonGlobal all are"),
    })
    .default({ allowRanges: [] }),
  directory: z
    .strictObject({
      host: host.optional().describe("IP address, without brackets; absent: the DNS tells where the servers are"),
      port: port.default(4606),
      irpPort: port.default(4604),
      anchor: anchorFile,
    })
    .describe("the server of the own domain"),
  local: z
    .strictObject({
      host: host.default("127.0.0.1").describe("where the owner's own programs connect"),
      smtpsPort: port.default(1465).describe("mail submission, TLS"),
      submissionPort: port.default(1587).describe("mail submission, STARTTLS"),
      ftpPort: port.default(2121).describe("FTP with AUTH TLS"),
      sipPort: port.default(5062).describe("SIP over UDP and TCP"),
      sipsPort: port.default(5063).describe("SIP over TLS"),
    })
    .default({
      host: "127.0.0.1",
      smtpsPort: 1465,
      submissionPort: 1587,
      ftpPort: 2121,
      sipPort: 5062,
      sipsPort: 5063,
    }),
  outbox: z
    .strictObject({
      retrySeconds: z
        .array(z.number().nonnegative())
        .min(1)
        .default([0, 15, 60, 300, 900, 1800, 3600])
        .describe("wait before each attempt; the last one repeats"),
      lifetimeSeconds: z
        .number()
        .int()
        .min(60)
        .max(2_592_000)
        .default(432_000)
        .describe("an item not delivered by then has failed"),
    })
    .default({ retrySeconds: [0, 15, 60, 300, 900, 1800, 3600], lifetimeSeconds: 432_000 }),
  smime: z
    .strictObject({
      contentEncryption: z
        .enum(["auto", "cbc", "gcm"])
        .default("auto")
        .describe("cbc: what older programs read; gcm: with a tag; auto: by what the recipient reads"),
      rsaSignature: z
        .enum(["pkcs1", "pss"])
        .default("pkcs1")
        .describe(
          "of owners whose own certificate is for an RSA key. pss: RSA-PSS, which older programs cannot verify",
        ),
    })
    .default({ contentEncryption: "auto", rsaSignature: "pkcs1" }),
});

const domain = z.strictObject({
  name: z.string().min(1).describe("the Internet domain"),
  host: host.default("::"),
  sixidPort: port.default(4606),
  irpPort: port.default(4604),
  status: z
    .strictObject({
      host: host.default("::"),
      port: port.default(8604),
      url: z
        .string()
        .regex(/^http:\/\/[^/?#\s]+$/, { message: "no address, as http://ca.alpha.test:8604" })
        .optional()
        .describe("what certificates name as the place of lists and OCSP; absent: they name none"),
    })
    .optional()
    .describe("revocation lists and OCSP by plain HTTP; absent: by enrolment alone"),
  ca: caSchema.optional(),
  store: z
    .strictObject({
      postgres: secretFile.describe("a file with the connection string, as postgres://user:password@host/database"),
    })
    .optional()
    .describe("where the directory is kept if several servers share it; absent: in the home directory"),
  domains: z
    .array(z.strictObject({ domain: z.string().min(1), host, port: port.default(4606), anchor: anchorFile }))
    .default([])
    .describe("the other domains that this one knows"),
  federation: z
    .strictObject({
      mode: z
        .enum(["open", "listed", "closed"])
        .optional()
        .describe("open: other domains are found by DNS; listed: those above alone; closed: none"),
      allowNonGlobal: z
        .boolean()
        .optional()
        .describe("also servers that the DNS finds at loopback and private addresses: for one machine or one house"),
      serverCertificate: z
        .strictObject({
          certificate: z.string().min(1).describe("PEM file, its chain behind it, relative to this file"),
          key: z.string().min(1).describe("PEM file"),
        })
        .optional()
        .describe("by a CA of the web, for the domain's name: by it domains go that do not list this one"),
    })
    .optional()
    .describe("how this domain finds others and is found; absent: open, with global addresses alone"),
});

export const configSchema = z
  .strictObject({
    peer: peer.optional().describe("a person's node"),
    domain: domain.optional().describe("directory, CA and enrolment of one domain"),
    trust: trustSchema.default({
      anchors: [],
      block: [],
      allow: [],
      rules: [],
      otherwise: "contacts",
      revocation: { privateTargets: false },
      requests: { box: true, port: true },
    }),
    dns: z
      .strictObject({
        servers: z.array(z.string().min(1)).default([]).describe("as [::1]:5353; empty: those of this machine"),
      })
      .default({ servers: [] }),
    metrics: z
      .strictObject({ host: host.default("127.0.0.1"), port: port.default(9464) })
      .optional()
      .describe("numbers for Prometheus at /metrics, and /healthz, /readyz; absent: none"),
    log: z
      .strictObject({ level: z.enum(["debug", "info", "warn", "error"]).default("info") })
      .default({ level: "info" })
      .describe("written to log/sixtalk.log"),
  })
  .refine((config) => config.peer !== undefined || config.domain !== undefined, {
    message: "a peer or a domain part is needed",
  });

/** The same as JSON schema, for editors: `config/sixtalk.schema.json`. */
export function configJsonSchema(): string {
  return `${JSON.stringify(z.toJSONSchema(configSchema, { io: "input" }), undefined, 2)}\n`;
}

export type Config = z.infer<typeof configSchema>;
export type PeerConfig = NonNullable<Config["peer"]>;
export type DomainConfig = NonNullable<Config["domain"]>;

/**
 * Reads sixtalk.yaml. File names in it are relative to it and come back absolute.
 * @throws SuiteError config-invalid; `details.problems` has one line for each problem, with file, line and column
 */
export function loadConfig(file: string): Config {
  if (!existsSync(file))
    throw new SuiteError("config-invalid", "there is no such file", {
      fault: "local",
      details: { problems: `${file}: there is no such file` },
    });
  let text: string;
  try {
    text = readFileSync(file, "utf8");
  } catch (cause) {
    throw new SuiteError("config-invalid", "the configuration cannot be read", {
      fault: "local",
      cause,
      details: { problems: `${file}: cannot be read` },
    });
  }
  return parseConfig(text, file);
}

export function parseConfig(text: string, file: string): Config {
  const lines = new LineCounter();
  const document = parseDocument(text, { lineCounter: lines, strict: true, uniqueKeys: true });
  const at = (offset: number | undefined) => {
    const { line, col } = lines.linePos(offset ?? 0);
    return `${file}:${line}:${col}`;
  };
  const broken = document.errors[0];
  if (broken !== undefined) throw invalid([`${at(broken.pos[0])}: ${broken.message.split("\n")[0]}`]);
  let value: unknown;
  try {
    value = document.toJS({ maxAliasCount: 0 });
  } catch {
    throw invalid([`${file}: aliases (*name) are not understood here`]);
  }
  const result = configSchema.safeParse(value ?? {});
  if (!result.success) {
    throw invalid(
      result.error.issues.map((issue) => {
        const path = issue.code === "unrecognized_keys" ? [...issue.path, issue.keys[0] ?? ""] : issue.path;
        return `${at(positionOf(document, path as (string | number)[]))}: ${path.join(".") || "file"}: ${issue.message}`;
      }),
    );
  }
  return absolute(result.data, dirname(resolve(file)));
}

/** The nearest node of the file that a problem's path leads to. */
function positionOf(
  document: ReturnType<typeof parseDocument>,
  path: readonly (string | number)[],
): number | undefined {
  for (let length = path.length; length >= 0; length--) {
    const node = document.getIn(path.slice(0, length), true) as { range?: [number, number, number] } | undefined;
    if (node?.range !== undefined) return node.range[0];
  }
  return undefined;
}

function absolute(config: Config, base: string): Config {
  const fix = <T extends { anchor: string }>(one: T): T => ({ ...one, anchor: resolve(base, one.anchor) });
  return {
    ...config,
    ...(config.peer === undefined ? {} : { peer: { ...config.peer, directory: fix(config.peer.directory) } }),
    ...(config.domain === undefined ? {} : { domain: absoluteDomain(config.domain, base) }),
    trust: {
      ...config.trust,
      anchors: config.trust.anchors.map((anchor) => ({ ...anchor, file: resolve(base, anchor.file) })),
    },
  };
}

function absoluteDomain(domain: DomainConfig, base: string): DomainConfig {
  const { domains, ca, store, federation } = domain;
  const file = (path: string) => resolve(base, path);
  const server = federation?.serverCertificate;
  return {
    ...domain,
    ...(ca === undefined ? {} : { ca: absoluteCa(ca, base) }),
    ...(store === undefined ? {} : { store: { postgres: absoluteSecret(store.postgres, base) } }),
    domains: domains.map((one) => ({ ...one, anchor: file(one.anchor) })),
    ...(server === undefined
      ? {}
      : {
          federation: {
            ...federation,
            serverCertificate: { certificate: file(server.certificate), key: file(server.key) },
          },
        }),
  };
}

function invalid(problems: readonly string[]): SuiteError {
  return new SuiteError("config-invalid", "the configuration is not valid", {
    fault: "local",
    details: { problems: problems.join("\n") },
  });
}

function isRange(text: string): boolean {
  try {
    parseRange(text);
    return true;
  } catch {
    return false;
  }
}

/** Private networks that may be dialled. Who is to be found in one goes to others there, too. */
export function dialRanges({ dial, announce }: PeerConfig): readonly string[] {
  return announce.allowNonGlobal ? ["0.0.0.0/0", "::/0"] : dial.allowRanges;
}
