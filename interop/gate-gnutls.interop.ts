import { spawn } from "node:child_process";
import { join } from "node:path";
import { afterAll, beforeAll, expect, test } from "vitest";
import { type Actor, rootOf } from "../src/cli/demo-stage.ts";
import { type Pair, run, startPair, watched } from "./pair.ts";

let pair: Pair;
/** Of Alice's domain; Bob does not know her. */
let carol: Actor;

beforeAll(async () => {
  pair = await startPair();
  carol = await pair.stage.person(pair.alpha, "carol", "Carol Example");
});

afterAll(() => pair[Symbol.asyncDispose]());

interface Own {
  certificate: string;
  key: string;
}

const ownOf = ({ home }: Actor): Own => ({
  certificate: join(home.keys, "auth.pem"),
  key: join(home.keys, "auth.key"),
});

/** GnuTLS's client at Bob's peer port. It judges whom it reaches only if `options` say so: who is behind a peer port, no host's name tells. */
function gnutls(own: Own | undefined, o: { alpn?: string; options?: readonly string[] } = {}) {
  const { alpn = "sip/2", options = ["--no-ca-verification"] } = o;
  const { host, port } = pair.bob.ports["peer"] as { host: string; port: number };
  const key = own === undefined ? [] : ["--x509certfile", own.certificate, "--x509keyfile", own.key];
  const args = ["--port", String(port), "--alpn", alpn, ...key, ...options, host];
  const child = spawn("gnutls-cli", args, { stdio: ["pipe", "pipe", "pipe"], timeout: 60_000 });
  child.stdin.on("error", () => undefined); // refused while we type
  const ended = new Promise<number | null>((resolve) => child.once("close", resolve));
  return { ...watched(child), ended, type: (text: string) => child.stdin.write(text), hangUp: () => child.stdin.end() };
}

const options = (call: string) =>
  [
    "OPTIONS sip:bob@beta.test SIP/2.0",
    `Via: SIP/2.0/TLS [::1]:5061;branch=z9hG4bK${call}`,
    "Max-Forwards: 1",
    "From: <sip:alice@alpha.test>;tag=1",
    "To: <sip:bob@beta.test>",
    `Call-ID: ${call}`,
    "CSeq: 1 OPTIONS",
    "Content-Length: 0",
    "\r\n",
  ].join("\r\n");

/** What came behind the handshake, the program's own lines aside. */
function received(text: string): string {
  const behind = text.split("- Handshake was completed\n\n")[1] ?? "no handshake";
  return behind.replace(/^- Simple Client Mode:\n\n/, "").replace(/^(\*\*\*|- Peer has closed).*\n/gm, "");
}

test("a contact is admitted by TLS 1.3: a ping is answered, and OPTIONS", async () => {
  const client = gnutls(ownOf(pair.alice));
  await client.shows("- Simple Client Mode:\n\n");
  expect(client.text()).toContain("- Description: (TLS1.3-X.509)");
  expect(client.text()).toContain("- Application protocol: sip/2");
  client.type("\r\n\r\n");
  await client.shows("- Simple Client Mode:\n\n\r\n");
  client.type(options("first"));
  await client.shows(/Call-ID: first\r\n(.+\r\n)*Content-Length: 0\r\n\r\n/);
  expect(received(client.text())).toMatch(/^\r\nSIP\/2\.0 200 OK\r\n/);
  client.hangUp();
  expect(await client.ended).toBe(0);
});

test("a session is resumed, and admitted again", async () => {
  const client = gnutls(ownOf(pair.alice), { options: ["--no-ca-verification", "--resume", "--waitresumption"] });
  await client.shows("*** This is a resumed session");
  client.type(options("resumed"));
  await client.shows("Call-ID: resumed");
  client.hangUp();
  await client.ended;
});

test.each<[string, () => Promise<Own | undefined>, string]>([
  ["Carol, whom Bob does not know,", async () => ownOf(carol), "[49]: Access was denied"],
  ["somebody without a certificate", async () => undefined, "[116]: Certificate is required"],
  ["somebody who certified himself to be Alice", selfSigned, "[48]: CA is unknown"],
])("%s is refused by an alert, and reads nothing, though he spoke at once", async (_, own, alert) => {
  const client = gnutls(await own());
  client.type(options("stranger"));
  expect(await client.ended).toBe(1);
  expect(client.text()).toContain(`*** Received alert ${alert}\n`);
  expect(received(client.text())).toBe("");
});

test.each<[string, Parameters<typeof gnutls>[1], string]>([
  ["a protocol that is not spoken here", { alpn: "h2" }, "[120]"],
  ["TLS 1.2", { options: ["--no-ca-verification", "--priority", "NORMAL:-VERS-ALL:+VERS-TLS1.2"] }, "[70]"],
])("%s ends in the handshake", async (_, how, alert) => {
  const client = gnutls(ownOf(pair.alice), how);
  expect(await client.ended).toBe(1);
  expect(client.text()).toContain(`*** Received alert ${alert}`);
  expect(client.text()).not.toContain("Handshake was completed");
});

test("asked to judge Bob's certificate itself, it takes his full name for a host's and refuses", async () => {
  const root = rootOf(pair.beta.home);
  const client = gnutls(ownOf(pair.alice), { options: ["--x509cafile", root, "--verify-hostname", "beta.test"] });
  expect(await client.ended).toBe(1);
  expect(client.text()).toContain("The certificate chain violates the signer's constraints.");
});

async function selfSigned(): Promise<Own> {
  const [certificate, key] = ["self.pem", "self.key"].map((name) => join(pair.stage.folder, name)) as [string, string];
  const how = ["-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-subj", "/CN=Alice Example"];
  const names = ["-addext", "subjectAltName=email:alice@alpha.test,URI:sip:alice@alpha.test"];
  const made = await run("openssl", ["req", "-x509", ...how, ...names, "-keyout", key, "-out", certificate]);
  expect(made, made.err).toMatchObject({ code: 0 });
  return { certificate, key };
}
