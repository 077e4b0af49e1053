import { describe, expect, test } from "vitest";
import { parseConfig } from "../../src/node/config.ts";
import { SuiteError } from "../../src/pki/suite-error.ts";

const peer = `peer:
  identity: alice@alpha.test
  name: Alice
  directory:
    host: "::1"
    anchor: anchors/alpha.pem
`;

function problems(text: string): string[] {
  try {
    parseConfig(text, "/etc/sixtalk.yaml");
  } catch (error) {
    if (error instanceof SuiteError && error.code === "config-invalid")
      return String(error.details["problems"]).split("\n");
    throw error;
  }
  return [];
}

describe("each error says where it is", () => {
  test.each<[string, string, RegExp[]]>([
    ["a number where a name is due", peer.replace("Alice", "7"), [/^\/etc\/sixtalk\.yaml:3:9: peer\.name: /]],
    ["an empty name", peer.replace("Alice", '""'), [/^\/etc\/sixtalk\.yaml:3:9: peer\.name: /]],
    ["a word that is none", `${peer}  lisen: {port: 1}\n`, [/^\/etc\/sixtalk\.yaml:7:\d+: peer\.lisen: /]],
    ["a word that is none, at the top", `${peer}trsut: {}\n`, [/^\/etc\/sixtalk\.yaml:7:\d+: trsut: /]],
    ["a port over 65535", `${peer}  listen:\n    port: 70000\n`, [/^\/etc\/sixtalk\.yaml:8:11: peer\.listen\.port: /]],
    [
      "a port that is no number",
      `${peer}  listen: {host: "::", port: yes}\n`,
      [/^\/etc\/sixtalk\.yaml:7:\d+: peer\.listen\.port: /],
    ],
    [
      "a classic port that there is none of",
      `${peer}  classic: {ftps: 990}\n`,
      [/^\/etc\/sixtalk\.yaml:7:\d+: peer\.classic\.ftps: /],
    ],
    ["a level that is none", `${peer}log:\n  level: loud\n`, [/^\/etc\/sixtalk\.yaml:8:10: log\.level: /]],
    [
      "something missing: the place where it should be",
      peer.replace("    anchor: anchors/alpha.pem\n", ""),
      [/^\/etc\/sixtalk\.yaml:5:\d+: peer\.directory\.anchor: /],
    ],
    [
      "an entry in a list",
      `${peer}trust:\n  allow:\n    - identity: bob@beta.test\n    - domain: beta.test\n`,
      [/^\/etc\/sixtalk\.yaml:10:\d+: trust\.allow\.1: exactly one of identity, fingerprint is needed/],
    ],
    [
      "two at once",
      peer.replace("Alice", "7").replace("alice@alpha.test", "8"),
      [/^\/etc\/sixtalk\.yaml:2:13: peer\.identity: /, /^\/etc\/sixtalk\.yaml:3:9: peer\.name: /],
    ],
    ["an identity that is none", peer.replace("alice@alpha.test", "alice"), [/:2:13: peer\.identity: not user@domain/]],
    [
      "a blocked one that is none",
      `${peer}trust:\n  block:\n    - identity: bob\n`,
      [/:9:\d+: trust\.block\.0\.identity: /],
    ],
    ["a fingerprint that is none", `${peer}trust:\n  allow:\n    - fingerprint: ab\n`, [/:9:\d+: trust\.allow\.0\./]],
    ["an alias", `peer: &a {}\ndomain: *a\n`, [/aliases/]],
    ["broken YAML", "peer: [\n", [/^\/etc\/sixtalk\.yaml:\d+:\d+: /]],
    ["a key twice", `${peer}peer: {}\n`, [/^\/etc\/sixtalk\.yaml:7:1: Map keys must be unique/]],
    ["a tab for indentation", "peer:\n\tname: x\n", [/^\/etc\/sixtalk\.yaml:2:1: /]],
    ["nothing at all", "", [/^\/etc\/sixtalk\.yaml:1:1: file: a peer or a domain part is needed/]],
    ["a list", "- a\n", [/^\/etc\/sixtalk\.yaml:1:1: file: /]],
    ["a text", "hello", [/^\/etc\/sixtalk\.yaml:1:1: file: /]],
  ])("%s", (_name, text, expected) => {
    const found = problems(text);
    expect(found).toHaveLength(expected.length);
    for (const [index, pattern] of expected.entries()) expect(found[index]).toMatch(pattern);
  });
});

test("file names are relative to the file, and absolute ones stay", () => {
  const config = parseConfig(
    `${peer}trust:\n  anchors:\n    - {name: a, file: /x/a.pem, domains: [any]}\n    - {name: b, file: b.pem, domains: [any]}\n`,
    "/etc/sixtalk/sixtalk.yaml",
  );
  expect(config.peer?.directory.anchor).toBe("/etc/sixtalk/anchors/alpha.pem");
  expect(config.trust.anchors.map(({ file }) => file)).toEqual(["/x/a.pem", "/etc/sixtalk/b.pem"]);
});

test("what is left out has its default, also where its neighbour is given", () => {
  const config = parseConfig(`${peer}  local:\n    sipPort: 1\n`, "f");
  expect(config.peer).toMatchObject({
    listen: { host: "::", port: 4605 },
    local: { host: "127.0.0.1", sipPort: 1, sipsPort: 5063, smtpsPort: 1465 },
    directory: { port: 4606, irpPort: 4604 },
  });
  expect(config.log.level).toBe("info");
  expect(config.domain).toBeUndefined();
});
