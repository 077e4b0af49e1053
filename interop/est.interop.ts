import { existsSync, readFileSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { afterAll, beforeAll, describe, expect, test } from "vitest";
import { type Actor, rootOf, Stage } from "../src/cli/demo-stage.ts";
import { freePort } from "../src/node/free-port.ts";
import { run } from "./pair.ts";

/**
 * Clients of EST that nobody here wrote, at a domain's server; openssl judges what the CA tells of revocation. The domain is
 * "localhost": strongSwan connects to the name that the server's certificate has to show, and to no other.
 */
let stage: Stage;
let domain: Actor;
let url: string;
let status: string;
let root: string;
const at = (name: string) => join(stage.folder, name);

beforeAll(async () => {
  stage = await Stage.build();
  const port = await freePort("127.0.0.1", 0);
  status = `http://127.0.0.1:${port}`;
  [domain] = (await stage.domains(["localhost"], {
    change: (_name, config) =>
      void Object.assign(config["domain"] ?? {}, {
        host: "127.0.0.1",
        status: { host: "127.0.0.1", port, url: status },
      }),
  })) as [Actor];
  url = `https://localhost:${domain.ports["sixid"]?.port ?? 0}`;
  root = rootOf(domain.home);
  writeFileSync(at("strongswan.conf"), "libtls { version_max = 1.3 }\n"); // it speaks TLS 1.2 else
});
afterAll(() => stage.strike());

/** A request for a key, a new one if there is none: NAME.key, NAME.csr (DER), NAME.b64 (as curl sends it). */
async function request(name: string, ...key: string[]): Promise<void> {
  const kind = key.length > 0 ? key : ["-algorithm", "EC", "-pkeyopt", "ec_paramgen_curve:P-256"];
  if (!existsSync(at(`${name}.key`)))
    expect(await run("openssl", ["genpkey", ...kind, "-out", at(`${name}.key`)])).toMatchObject({ code: 0 });
  const csr = ["req", "-new", "-key", at(`${name}.key`), "-subj", "/CN=somebody else", "-outform", "DER"];
  expect(await run("openssl", [...csr, "-out", at(`${name}.csr`)])).toMatchObject({ code: 0 });
  writeFileSync(at(`${name}.b64`), readFileSync(at(`${name}.csr`)).toString("base64"));
}

async function invitation(user: string): Promise<string> {
  const told = await stage.command(domain, "domain", "invite", user);
  return /[?&]code=([0-9A-Z-]+)/.exec(told)?.[1] ?? "";
}

async function subjectOf(name: string): Promise<string> {
  return (await run("openssl", ["x509", "-in", at(`${name}.pem`), "-noout", "-subject", "-ext", "subjectAltName"])).out;
}

describe("strongSwan", () => {
  async function pki(...args: string[]) {
    return run("env", [`STRONGSWAN_CONF=${at("strongswan.conf")}`, "pki", ...args]);
  }

  test("pki --estca fetches root and issuing CA and finds them trusted", async () => {
    const { code, err } = await pki("--estca", "--url", url, "--cacert", root, "--caout", at("ca"), "--force");
    expect([code, err]).toEqual([0, expect.stringContaining("Sub CA cert is trusted")]);
    const der = ["x509", "-inform", "DER", "-in", at("ca-1.der"), "-out", at("ca.pem")];
    expect(await run("openssl", der)).toMatchObject({ code: 0 });
  });

  test("pki --est enrols by an invitation, for the invited name, and by the certificate for a new key", async () => {
    await request("s1");
    const code = await invitation("alice");
    const base = ["--est", "--url", url, "--cacert", root, "--cacert", at("ca.pem"), "-f", "pem"];
    const first = await pki(...base, "--in", at("s1.csr"), "--userpass", `alice@localhost:${code}`);
    expect([first.code, first.err]).toEqual([0, expect.stringContaining("Issued certificate is trusted")]);
    writeFileSync(at("s1.pem"), first.out);
    expect(await subjectOf("s1")).toMatch(/emailAddress = alice@localhost[\s\S]*email:alice@localhost/);
    await request("s2");
    const second = await pki(...base, "--in", at("s2.csr"), "--cert", at("s1.pem"), "--key", at("s1.key"));
    expect([second.code, second.err]).toEqual([0, expect.stringContaining("Issued certificate is trusted")]);
    writeFileSync(at("s2.pem"), second.out);
    expect(await subjectOf("s2")).toContain("email:alice@localhost");
  });

  test("pki --est is told no for a wrong code", async () => {
    await request("s3");
    const args = ["--est", "--url", url, "--cacert", root, "--in", at("s3.csr"), "--userpass", "alice:WRONG"];
    const { code, err } = await pki(...args);
    expect([code, err]).toEqual([expect.any(Number), expect.stringContaining("401")]);
    expect(code).not.toBe(0);
  });
});

describe("curl and openssl", () => {
  async function curl(path: string, ...args: string[]) {
    const common = ["-sS", "--cacert", root, "-w", "%{http_code}"];
    return run("curl", [...common, "-o", at("answer"), ...args, `${url}/.well-known/est/${path}`]);
  }
  async function certificate(name: string): Promise<void> {
    const message = Buffer.from(readFileSync(at("answer"), "latin1"), "base64");
    writeFileSync(at("answer.p7"), message);
    const shown = await run("openssl", ["pkcs7", "-inform", "DER", "-in", at("answer.p7"), "-print_certs"]);
    writeFileSync(at(`${name}.pem`), shown.out);
  }
  const post = (name: string) => ["-H", "Content-Type: application/pkcs10", "--data-binary", `@${at(`${name}.b64`)}`];

  test("enrol by invitation, and again by certificate, with and without label", async () => {
    const code = await invitation("bob");
    await request("c1");
    expect((await curl("simpleenroll", ...post("c1"), "-u", `bob@localhost:${code}`)).out).toBe("200");
    await certificate("c1");
    expect(await subjectOf("c1")).toContain("email:bob@localhost");
    const own = ["--cert", at("c1.pem"), "--key", at("c1.key")];
    expect((await curl("simplereenroll", ...post("c1"), ...own)).out).toBe("200");
    await certificate("c1-again");
    expect(readFileSync(at("c1-again.pem"))).toEqual(readFileSync(at("c1.pem"))); // the very same request: within a day the same
    await request("c1"); // another one for the same key
    expect((await curl("simplereenroll", ...post("c1"), ...own)).out).toBe("200");
    await certificate("c1-again");
    expect(readFileSync(at("c1-again.pem"))).not.toEqual(readFileSync(at("c1.pem")));
    await request("c2", "-algorithm", "RSA", "-pkeyopt", "rsa_keygen_bits:3072");
    expect((await curl("encryption/simpleenroll", ...post("c2"), ...own)).out).toBe("200");
    await certificate("c2");
    const use = await run("openssl", ["x509", "-in", at("c2.pem"), "-noout", "-ext", "keyUsage"]);
    expect(use.out).toContain("Key Encipherment");
    expect((await curl("serverkeygen", ...post("c1"), ...own)).out).toBe("403");
    expect((await curl("simpleenroll", ...post("c2"))).out).toBe("401");
  });

  test("openssl ocsp, crl and verify -crl_check agree with the CA before and after `domain revoke`", async () => {
    const issuer = at("issuing.pem");
    const all = readFileSync(join(domain.home.domain, "ca", "issuing.pem"));
    writeFileSync(issuer, all);
    writeFileSync(at("chain.pem"), Buffer.concat([all, readFileSync(root)]));
    const told = async () =>
      (
        await run("openssl", [
          "ocsp",
          "-issuer",
          issuer,
          "-cert",
          at("c1.pem"),
          "-url",
          `${status}/ocsp`,
          "-CAfile",
          root,
        ])
      ).out;
    const verified = async () => {
      const list = /URI:(http\S+\.crl)/.exec(
        (await run("openssl", ["x509", "-in", at("c1.pem"), "-noout", "-text"])).out,
      )?.[1];
      expect(await run("curl", ["-sS", "-o", at("list.crl"), list ?? ""])).toMatchObject({ code: 0 });
      const pem = ["crl", "-inform", "DER", "-in", at("list.crl"), "-CAfile", at("chain.pem"), "-out", at("list.pem")];
      expect((await run("openssl", pem)).err).toContain("verify OK");
      const check = ["-x509_strict", "-crl_check", "-CAfile", root, "-untrusted", issuer, "-CRLfile", at("list.pem")];
      const { out, err } = await run("openssl", ["verify", ...check, at("c1.pem")]);
      return out + err;
    };
    expect(await told()).toContain("c1.pem: good");
    expect(await verified()).toContain("c1.pem: OK");
    const serial =
      (await run("openssl", ["x509", "-in", at("c1.pem"), "-noout", "-serial"])).out.trim().split("=")[1] ?? "";
    await stage.command(domain, "domain", "revoke", serial, "--reason", "keyCompromise");
    expect(await told()).toMatch(/c1.pem: revoked[\s\S]*keyCompromise/);
    expect(await verified()).toContain("certificate revoked");
    expect(await stage.command(domain, "domain", "certificates", "bob")).toContain("revoked (keyCompromise");
    expect(await stage.command(domain, "domain", "audit", "verify")).toMatch(/^\d+ entries hold/);
    // Its owner does not even get through the handshake any more.
    const refused = await curl("simplereenroll", ...post("c1"), "--cert", at("c1.pem"), "--key", at("c1.key"));
    expect([refused.out, refused.err]).toEqual(["000", expect.stringMatching(/revoked|alert/i)]);
    expect(existsSync(at("answer"))).toBe(true);
  });
});
