import { spawn } from "node:child_process";
import { once } from "node:events";
import { writeFileSync } from "node:fs";
import { expect, test } from "vitest";
import { stringify } from "yaml";
import { LAUNCHER } from "../../src/cli/self.ts";
import { openStore } from "../../src/node/domain-store.ts";
import { KeyFiles } from "../../src/node/keys.ts";
import { parseIdentity } from "../../src/pki/identity.ts";
import { smimeaLabel } from "../../src/sixid/zone.ts";
import { enrolPerson, startDomain } from "../support/people.ts";
import { temporaryFolder } from "../support/tmp.ts";

test("the owner lists people, gives roles, blocks, unblocks and removes; the running server sees it; the zone has who is public", async () => {
  await using folder = await temporaryFolder();
  const domain = await startDomain(folder.path, "alpha.test");
  const { sixid, irp } = domain.server.ports;
  const part = { name: domain.name, host: "::1", sixidPort: sixid.port, irpPort: irp.port };
  writeFileSync(domain.home.config, stringify({ domain: part }));
  const owner = async (...args: string[]) => {
    const child = spawn(process.execPath, [LAUNCHER, "--home", domain.home.directory, "domain", ...args]);
    const told = { out: "", err: "" };
    child.stdout.on("data", (chunk: Buffer) => void (told.out += chunk.toString()));
    child.stderr.on("data", (chunk: Buffer) => void (told.err += chunk.toString()));
    const [code] = (await once(child, "close")) as [number];
    return { ...told, code };
  };
  try {
    expect((await owner("users")).out).toBe("nobody\n");
    const alice = await enrolPerson(folder.path, domain, "alice");
    await owner("invite", "bob", "--name", "Bob Example");
    const lines = (await owner("users")).out.split("\n");
    expect(lines[0]).toMatch(/^alice@alpha\.test {2}Alice {2}1 device$/);
    expect(lines[1]).toBe("bob@alpha.test  Bob Example  not enrolled");
    expect((await owner("users", "EXAMPLE")).out).toMatch(/^bob@alpha\.test[^\n]*\n$/);

    expect((await owner("role", "alice", "admin")).out).toBe("alice@alpha.test: admin\n");
    expect((await owner("role", "alice", "king")).code).toBe(1);
    expect((await owner("users", "alice")).out).toContain("admin");
    expect((await owner("block", "alice")).out).toBe("alice@alpha.test is blocked.\n");
    expect(await domain.server.accounts.find(parseIdentity("alice@alpha.test"))).toBeUndefined();
    expect((await owner("unblock", "alice@alpha.test")).code).toBe(0);
    expect(await domain.server.accounts.find(parseIdentity("alice@alpha.test"))).toBeDefined();
    expect(await owner("block", "nobody")).toMatchObject({
      code: 1,
      err: expect.stringContaining("nobody of that name"),
    });

    const zone = () => owner("zone", "--host", "sixid.alpha.test", "--address", "2001:db8::1");
    const label = smimeaLabel(parseIdentity("alice@alpha.test"));
    expect((await zone()).out).not.toContain(label);
    const store = await openStore({}, domain.home);
    const user = await store.user(parseIdentity("alice@alpha.test"));
    const visibility = { certificates: "public", addresses: "authenticated", presence: "contacts" } as const;
    await store.setVisibility(user?.uuid ?? "", visibility);
    await store.close();
    const { out } = await zone();
    expect(out).toContain(`_sixid._tcp IN SRV 10 10 ${sixid.port} sixid.alpha.test.`);
    const [encryption] = new KeyFiles(alice).load().encryption;
    const der = Buffer.from(encryption?.certificate.der ?? "").toString("hex");
    expect(out.replace(/\s/g, "")).toContain(`${label}._smimecertINSMIMEA300(${der})`);

    expect((await owner("remove", "alice")).code).toBe(1);
    expect((await owner("remove", "alice", "--yes")).code).toBe(0);
    expect((await owner("users")).out).not.toContain("alice");
    expect((await zone()).out).not.toContain(label);
  } finally {
    await domain.server.stop();
  }
}, 60_000);
