import { spawn } from "node:child_process";
import { once } from "node:events";
import { writeFileSync } from "node:fs";
import { join } from "node:path";
import { expect, test } from "vitest";
import { stringify } from "yaml";
import { LAUNCHER } from "../../src/cli/self.ts";
import { KeyFiles } from "../../src/node/keys.ts";
import { parseRevocationList } from "../../src/pki/crl.ts";
import { enrolPerson, type RunningDomain, startDomain } from "../support/people.ts";
import { temporaryFolder } from "../support/tmp.ts";

/** A command of the owner's, beside the running server. */
async function owner({ home }: RunningDomain, ...args: string[]): Promise<{ out: string; err: string; code: number }> {
  const child = spawn(process.execPath, [LAUNCHER, "--home", home.directory, "domain", ...args]);
  const told = { out: "", err: "" };
  child.stdout.on("data", (chunk: Buffer) => void (told.out += chunk.toString()));
  child.stderr.on("data", (chunk: Buffer) => void (told.err += chunk.toString()));
  const [code] = (await once(child, "close")) as [number];
  return { ...told, code };
}

test("what the owner revokes by the command line the running server tells at once, in list and to who follows", async () => {
  await using folder = await temporaryFolder();
  const domain = await startDomain(folder.path, "alpha.test");
  const { sixid, irp } = domain.server.ports;
  const part = { name: domain.name, host: "::1", sixidPort: sixid.port, irpPort: irp.port };
  writeFileSync(domain.home.config, stringify({ domain: part }));
  try {
    const alice = await enrolPerson(folder.path, domain, "alice");
    const { certificate } = new KeyFiles(alice).load().auth;
    const serial = Buffer.from(certificate.serial).toString("hex");
    const seen: string[] = [];
    domain.server.ca.follow((registered) => void seen.push(registered.serial));
    const { authority } = domain.server.ca;
    const size = () => parseRevocationList(authority.crl()?.der ?? new Uint8Array()).size;
    expect(size()).toBe(0);

    expect((await owner(domain, "certificates", "alice")).out).toContain(`${serial}  auth`);
    expect(await owner(domain, "revoke", "00ff")).toMatchObject({ code: 1, err: expect.stringContaining("no such") });
    expect(await owner(domain, "revoke", serial, "--reason", "hunger")).toMatchObject({ code: 1 });
    expect(size()).toBe(0);
    expect(await owner(domain, "revoke", serial.toUpperCase(), "--reason", "keyCompromise")).toMatchObject({ code: 0 });
    expect(size()).toBe(1);
    await expect.poll(() => seen, { timeout: 5_000 }).toEqual([serial]);
    expect((await owner(domain, "certificates")).out).toContain("revoked (keyCompromise");
    expect((await owner(domain, "audit", "verify")).out).toMatch(/^3 entries hold/);
    expect((await owner(domain, "renew-now")).out).toContain("1 certificates are due now");
    expect((await owner(domain, "pending")).out).toBe("nothing waits\n");
    expect((await owner(domain, "approve", "00")).code).toBe(1);

    // A successor that the root signed elsewhere is in force for the running server when it looks next.
    const { out: csr } = await owner(domain, "ca", "csr");
    const request = join(folder.path, "next.csr");
    writeFileSync(request, csr);
    const root = join(domain.home.domain, "ca");
    const signed = await owner(domain, "ca", "sign", request, "--domain", "alpha.test", "--root", root);
    writeFileSync(join(folder.path, "next.pem"), signed.out);
    expect(await owner(domain, "ca", "install", join(folder.path, "next.pem"))).toMatchObject({ code: 0 });
    const before = authority.chain[0]?.sha256;
    domain.server.ca.look();
    expect(authority.chain.map(({ sha256 }) => sha256).slice(1, 2)).toEqual([before]);
    expect(authority.chain[0]?.sha256).not.toBe(before);
    const bob = await enrolPerson(folder.path, domain, "bob");
    expect(new KeyFiles(bob).load().auth.chain[0]?.sha256).toBe(authority.chain[0]?.sha256);
  } finally {
    await domain.server.stop();
  }
});
