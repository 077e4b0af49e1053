import { readFileSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { expect, test } from "vitest";
import { parse, stringify } from "yaml";
import { loadConfig } from "../../src/node/config.ts";
import { KeyFiles } from "../../src/node/keys.ts";
import { controlMethods } from "../../src/node/methods.ts";
import { derToPem } from "../../src/pki/pem.ts";
import { enrolPerson, startDomain, startNode } from "../support/people.ts";
import { temporaryFolder } from "../support/tmp.ts";

const quiet = async () => undefined;

test("a reload that fails changes nothing: neither rules nor keys, nor what the owner may still do", async () => {
  await using folder = await temporaryFolder();
  const domain = await startDomain(folder.path, "alpha.test");
  const home = await enrolPerson(folder.path, domain, "alice");
  const anchor = join(folder.path, "friends.pem");
  writeFileSync(anchor, derToPem(domain.root.der, "CERTIFICATE"));
  const text = readFileSync(home.config, "utf8");
  const trust = { anchors: [{ name: "friends", file: anchor, domains: ["beta.test"] }], otherwise: "deny" };
  writeFileSync(home.config, stringify({ ...(parse(text) as object), trust }));
  const node = await startNode(home, readFileSync(home.config, "utf8"));
  try {
    const { policy } = node.trust;
    const { sha256 } = node.keys.auth.certificate;
    const pem = join(home.keys, "auth.pem");
    const certificate = readFileSync(pem, "utf8");

    writeFileSync(pem, certificate.slice(0, 200));
    writeFileSync(home.config, text);
    expect(() => node.reload(loadConfig(home.config))).toThrow("a key file cannot be used");
    expect(node.trust.policy).toBe(policy);
    expect(node.keys.auth.certificate.sha256).toBe(sha256);
    writeFileSync(pem, certificate);
    expect(new KeyFiles(home).load().auth.certificate.sha256).toBe(sha256);

    // An anchor's file that is broken by now keeps nobody from being blocked.
    writeFileSync(anchor, "");
    expect(() => node.reload(loadConfig(join(folder.path, "none")))).toThrow();
    const block = controlMethods(node)["trust.block"];
    await block?.run({ identity: "mallory@beta.test" }, quiet, new AbortController().signal);
    const rules = node.trust.policy;
    expect(rules).not.toBe(policy);
    expect(rules.anchors.map(({ name }) => name)).toContain("friends");
    node.reload(loadConfig(home.config));
    expect(node.trust.policy.anchors.map(({ name }) => name)).not.toContain("friends");
  } finally {
    await node.stop();
    await domain.server.stop();
  }
});
