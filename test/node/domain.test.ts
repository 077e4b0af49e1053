import { createPrivateKey, X509Certificate } from "node:crypto";
import { existsSync, readFileSync, rmSync } from "node:fs";
import { join } from "node:path";
import { expect, test } from "vitest";
import { domainCommand } from "../../src/cli/domain.ts";
import { initDomain, invite } from "../../src/node/domain.ts";
import { homeAt, makeHome } from "../../src/node/home.ts";
import { localTls } from "../../src/node/local-tls.ts";
import { joinedConfig, writeConfig } from "../../src/node/new-config.ts";
import { silentLog } from "../../src/pki/log.ts";
import { openSqliteStore } from "../../src/sixid/store/sqlite.ts";
import { temporaryFolder } from "../support/tmp.ts";

const now = new Date();
const clock = () => now;

test("a domain that was cut off between CA and configuration is made with the same CA", async () => {
  await using folder = await temporaryFolder();
  const home = homeAt(join(folder.path, "alpha"), {});
  makeHome(home);
  const { root } = initDomain(home, "alpha.test", now);
  expect(initDomain(home, "alpha.test", now).root.sha256).toBe(root.sha256);
  expect(() => initDomain(home, "beta.test", now)).toThrow("the CA in this home is another domain's");
});

test("a part that is there, or is not valid, is refused before anything is made", async () => {
  await using folder = await temporaryFolder();
  const home = homeAt(join(folder.path, "alpha"), {});
  const command = domainCommand().configureOutput({ writeErr: () => undefined });
  command.option("--home <directory>");
  const init = ["init", "alpha.test", "--home", home.directory, "--irp-port", "many"];
  await expect(command.parseAsync(init, { from: "user" })).rejects.toMatchObject({ code: "config-invalid" });
  expect(existsSync(home.directory)).toBe(false);
  makeHome(home);
  writeConfig(home, { domain: { name: "alpha.test" } });
  const before = readFileSync(home.config, "utf8");
  expect(() => joinedConfig(home, { domain: { name: "beta.test" } })).toThrow("this home is set up already");
  expect(readFileSync(home.config, "utf8")).toBe(before);
});

test("an invitation that nobody could use is not made", async () => {
  await using folder = await temporaryFolder();
  const home = homeAt(join(folder.path, "alpha"), {});
  makeHome(home);
  initDomain(home, "alpha.test", now);
  const config = { name: "alpha.test", host: "::1", sixidPort: 1, irpPort: 2, domains: [] };
  const reach = { host: "server.alpha.test", port: 2 };
  await expect(invite({ home, config, log: silentLog, clock }, "alice", undefined, reach)).rejects.toMatchObject({
    code: "syntax",
    details: { reach: reach.host },
  });
  expect(existsSync(join(home.domain, "directory.db"))).toBe(false);
});

test("who is invited without a name gets one that no program takes for a host's", async () => {
  await using folder = await temporaryFolder();
  const home = homeAt(join(folder.path, "alpha"), {});
  makeHome(home);
  initDomain(home, "alpha.test", now);
  const config = { name: "alpha.test", host: "::1", sixidPort: 1, irpPort: 2, domains: [] };
  const names: [string, string | undefined][] = [];
  for (const [user, name] of [["j.doe"], ["anna-maria.o_neill"], ["zoë"], ["x.y", "X.Y of Z"], ["++"]] as const) {
    const { identity } = await invite({ home, config, log: silentLog, clock }, user, name, { host: "::1", port: 2 });
    const store = openSqliteStore(join(home.domain, "directory.db"));
    names.push([user, (await store.user(identity))?.name]);
    await store.close();
  }
  expect(names).toEqual([
    ["j.doe", "J Doe"],
    ["anna-maria.o_neill", "Anna Maria O Neill"],
    ["zoë", "Zoë"],
    ["x.y", "X.Y of Z"],
    ["++", "++"],
  ]);
});

test.each(["local.key", "local.pem", "local-ca.key"])(
  "local listeners have key and certificate again when %s is lost",
  async (name) => {
    await using folder = await temporaryFolder();
    const home = homeAt(join(folder.path, "alice"), {});
    makeHome(home);
    localTls(home, now);
    rmSync(join(home.keys, name));
    const tls = localTls(home, now);
    const [ca, leaf] = [readFileSync(join(home.anchors, "local-ca.pem")), tls.certificatePem].map(
      (pem) => new X509Certificate(pem),
    );
    expect(leaf?.checkPrivateKey(createPrivateKey(tls.keyPem))).toBe(true);
    expect(ca !== undefined && leaf?.verify(ca.publicKey)).toBe(true);
    expect(localTls(home, now)).toEqual(tls);
  },
);
