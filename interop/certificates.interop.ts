import { generateKeyPairSync, X509Certificate } from "node:crypto";
import { mkdirSync, readFileSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { afterAll, beforeAll, describe, expect, test } from "vitest";
import { type Issued, startIssued } from "./issued.ts";
import { type Ran, run } from "./pair.ts";

let issued: Issued;

beforeAll(async () => {
  issued = await startIssued();
  issued.certify("sealed-ec", "dana@alpha.test", {
    seal: generateKeyPairSync("ec", { namedCurve: "P-256" }).privateKey,
  });
  issued.certify("international", "zoë@alpha.test", { fullName: "Zoë Ö" });
  issued.certify("expired", "old@alpha.test", { from: -60 });
  issued.certify("elsewhere", "mallory@evil.test");
  issued.certify("host-name", "host@alpha.test", { fullName: "host.alpha.test" });
  issued.certify("dotted", "j.doe@alpha.test", { fullName: "j.doe" });
  issued.list("nobody", []);
  issued.list("revoked", ["auth"]);
});

afterAll(() => issued[Symbol.asyncDispose]());

const all = ({ out, err }: Ran) => `${out}${err}`;
/** What NSS and GnuTLS say of a person's full name, which they take for a host's where a server is meant. */
const NOT_THIS_NAME = "not permitted to issue a certificate with this name";

describe("NSS (certutil)", () => {
  const kept = () => `sql:${join(issued.folder, "nss")}`;
  const certutil = (...args: string[]) => run("certutil", [...args, "-d", kept()]);
  const says = async (name: string, usage: string) =>
    /certificate is (valid)|invalid: (.*)\./.exec(all(await certutil("-V", "-n", name, "-u", usage, "-e")))?.slice(1);

  beforeAll(async () => {
    mkdirSync(join(issued.folder, "nss"));
    await certutil("-N", "--empty-password");
    const trust = [["root", "CT,CT,CT"]];
    const others = [
      "ca",
      "auth",
      "encryption",
      "server",
      "sealed-ec",
      "international",
      "expired",
      "elsewhere",
      "host-name",
    ];
    for (const [name, how] of [...trust, ...others.map((one) => [one, ",,"])] as [string, string][])
      expect(await certutil("-A", "-n", name, "-t", how, "-i", issued.file(name))).toMatchObject({ code: 0 });
  });

  const [client, server, signer, recipient] = ["C", "V", "S", "R"];
  test.each<[string, string, string | undefined, string]>([
    ["AUTH", "TLS client", client, "valid"],
    ["AUTH", "signer of mail", signer, "valid"],
    ["ENCRYPTION", "recipient of mail", recipient, "valid"],
    ["ENCRYPTION", "TLS client", client, "Certificate key usage inadequate for attempted operation"],
    ["ENCRYPTION", "signer of mail", signer, "Certificate key usage inadequate for attempted operation"],
    ["sealed-ec", "recipient of mail", recipient, "valid"],
    ["international", "signer of mail", signer, "valid"],
    ["server", "TLS server", server, "valid"],
    ["server", "TLS client", client, "valid"],
    ["server", "signer of mail", signer, "Certificate type not approved for application"],
    ["ca", "CA", "L", "valid"],
    ["expired", "TLS client", client, "Peer's Certificate has expired"],
    ["elsewhere", "TLS client", client, `The Certifying Authority for this certificate is ${NOT_THIS_NAME}`],
    ["AUTH", "TLS server", server, `The Certifying Authority for this certificate is ${NOT_THIS_NAME}`],
    ["host-name", "TLS server", server, "valid"],
  ])("of %s as a %s", async (name, _, usage, answer) => {
    expect(await says(name.toLowerCase(), usage as string)).toContain(answer);
  });

  test("our revocation list is taken, and who is on it is revoked", async () => {
    const taken = await run("crlutil", ["-I", "-i", join(issued.folder, "revoked.der"), "-d", kept(), "-t", "1"]);
    expect(taken, all(taken)).toMatchObject({ code: 0 });
    expect(await says("auth", "C")).toContain("Peer's Certificate has been revoked");
    expect(await says("encryption", "R")).toContain("valid");
  });
});

describe("GnuTLS (certtool --verify)", () => {
  async function says(name: string, ...options: string[]): Promise<string> {
    const chain = join(issued.folder, `${name}.chain`);
    writeFileSync(
      chain,
      ["ca", name]
        .toReversed()
        .map((one) => readFileSync(issued.file(one), "utf8"))
        .join(""),
    );
    const trusted = ["--load-ca-certificate", issued.file("root")];
    const said = all(await run("certtool", ["--verify", ...trusted, "--infile", chain, ...options]));
    return /Chain verification output: (.*)/.exec(said)?.[1] ?? said;
  }

  const good = "Verified. The certificate is trusted.";
  const [serverAuth, emailProtection] = ["1.3.6.1.5.5.7.3.1", "1.3.6.1.5.5.7.3.4"];
  const purpose = "does not match the intended purpose";
  const constraints = "violates the signer's constraints";
  test.each<[string, string, string[], string]>([
    ["encryption", "for mail", ["--verify-purpose", emailProtection], good],
    ["encryption", "for its owner's address", ["--verify-email", "alice@alpha.test"], good],
    [
      "encryption",
      "for another's address",
      ["--verify-email", "bob@alpha.test"],
      "The name in the certificate does not match",
    ],
    ["encryption", "as a TLS server", ["--verify-purpose", serverAuth], purpose],
    ["sealed-ec", "for mail", ["--verify-purpose", emailProtection], good],
    ["server", "as a TLS server", ["--verify-purpose", serverAuth, "--verify-hostname", "alpha.test"], good],
    ["server", "as another's", ["--verify-hostname", "beta.test"], "The name in the certificate does not match"],
    ["server", "for mail", ["--verify-purpose", emailProtection], purpose],
    ["expired", "at all", [], "expired certificate"],
    ["elsewhere", "at all", [], constraints],
    ["auth", "at all", [], constraints],
    ["host-name", "at all", [], good],
  ])("of %s %s", async (name, _, options, answer) => {
    expect(await says(name, ...options)).toContain(answer);
  });

  test("our revocation list is taken, and who is on it is revoked", async () => {
    issued.list("encryption-revoked", ["encryption"]);
    expect(await says("encryption", "--load-crl", issued.file("nobody"))).toContain(good);
    expect(await says("encryption", "--load-crl", issued.file("encryption-revoked"))).toContain("revoked");
  });
});

describe("GnuPG (gpgsm)", () => {
  const gpgsm = (...args: string[]) =>
    run("gpgsm", [
      "--homedir",
      join(issued.folder, "gpg"),
      "--batch",
      "--disable-dirmngr",
      "--disable-crl-checks",
      ...args,
    ]);

  const printOf = (name: string) => new X509Certificate(readFileSync(issued.file(name))).fingerprint;

  /** What it says of that certificate, before what it says of those above. */
  async function says(name: string, ...options: string[]): Promise<string[]> {
    const shown = all(await gpgsm("--with-validation", ...options, "--list-chain", printOf(name)));
    return [...(shown.split("Certified by")[0] ?? "").matchAll(/^ {2}\[(.*)\]$/gm)].map(([, said]) => said ?? "");
  }

  beforeAll(async () => {
    const folder = join(issued.folder, "gpg");
    mkdirSync(folder, { mode: 0o700 });
    writeFileSync(join(folder, "trustlist.txt"), `${printOf("root")} S relax\n`);
    writeFileSync(join(folder, "gpg-agent.conf"), "no-allow-mark-trusted\n");
    for (const name of ["root", "ca", "auth", "encryption", "server", "sealed-ec", "expired", "elsewhere"]) {
      const imported = await gpgsm("--import", issued.file(name));
      expect(all(imported)).toContain("imported: 1");
    }
  });

  afterAll(() => run("gpgconf", ["--homedir", join(issued.folder, "gpg"), "--kill", "all"]));

  const constraints = "2.5.29.30";
  const unsupported = [
    `critical certificate extension ${constraints} is not supported`,
    "certificate is bad: Unsupported certificate",
  ];
  const good = ["certificate is good"];
  const ignoring = ["--ignore-cert-extension", constraints];
  test.each<[string, string, string[], string[]]>([
    ["AUTH", "auth", [], unsupported],
    ["AUTH, when told to overlook the constraints", "auth", ignoring, good],
    ["ENCRYPTION, when told so", "encryption", ignoring, good],
    ["EC encryption, when told so", "sealed-ec", ignoring, good],
    ["the server, when told so", "server", ignoring, good],
    [
      "the expired, when told so",
      "expired",
      ignoring,
      ["certificate has expired", "certificate is bad: Certificate expired"],
    ],
    ["one for another domain, when told so", "elsewhere", ignoring, good],
  ])("of %s", async (_, subject, options, answer) => {
    expect(await says(subject, ...options)).toEqual(answer);
  });
});

describe("OpenSSL", () => {
  const says = async (name: string, purpose: string) => {
    const above = ["-x509_strict", "-CAfile", issued.file("root"), "-untrusted", issued.file("ca")];
    return all(await run("openssl", ["verify", ...above, "-purpose", purpose, issued.file(name)]));
  };

  test.each<[string, string, string]>([
    ["auth", "sslserver", ": OK"],
    ["auth", "smimesign", ": OK"],
    ["host-name", "smimesign", ": OK"],
    ["dotted", "smimesign", "permitted subtree violation"],
  ])("of %s as %s", async (name, purpose, answer) => {
    expect(await says(name, purpose)).toContain(answer);
  });
});
