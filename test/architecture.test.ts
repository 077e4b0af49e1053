import { globSync, readFileSync } from "node:fs";
import { dirname, join } from "node:path";
import { fileURLToPath } from "node:url";
import { expect, test } from "vitest";
import { violations } from "./support/laws.ts";

const root = dirname(dirname(fileURLToPath(import.meta.url)));

test("the sources keep the laws of the architecture", () => {
  const files = globSync("src/**/*.ts", { cwd: root }).map((path) => ({
    path,
    text: readFileSync(join(root, path), "utf8"),
  }));
  expect(files.length).toBeGreaterThan(50);
  expect(violations(files)).toEqual([]);
});

test.each([
  ["an import upwards", "src/pki/a.ts", 'import { x } from "../delivery/outbox.ts";', "may not import delivery"],
  [
    "an import of a folder of equal rank",
    "src/sip/a.ts",
    'import type { x } from "../smtp/server.ts";',
    "may not import smtp",
  ],
  [
    "an import of a folder of equal rank, at rank 2",
    "src/sixid/server/a.ts",
    'import { x } from "../../irp/ca.ts";',
    "may not import irp",
  ],
  [
    "a socket outside the core",
    "src/smtp/a.ts",
    'import { connect } from "node:tls";',
    "only peertls-core opens sockets",
  ],
  [
    "a dynamic import of sockets",
    "src/cli/a.ts",
    'const net = await import("node:net");',
    "only peertls-core opens sockets",
  ],
  ["the global fetch", "src/sixid/a.ts", 'const reply = await fetch("https://x");', "not from globals"],
  [
    "a second maker of PeerConnection",
    "src/peertls-core/a.ts",
    "return new PeerConnection(key, facts);",
    "only the gate",
  ],
  [
    "the gate's key in other hands",
    "src/peertls-core/a.ts",
    'import { GATE_KEY } from "./connection.ts";',
    "only the gate",
  ],
  ["OpenSSL's verdict", "src/peertls-core/a.ts", "if (socket.authorized) admit();", "never asked for"],
  ["a default export", "src/cli/a.ts", "export default function a() {}", "no default exports"],
  ["a file that is several things", "src/cli/a.ts", "a\n".repeat(500), "lines"],
])("a planted violation is found: %s", (_name, path, text, message) => {
  expect(violations([{ path, text }]).join("\n")).toContain(message);
});
