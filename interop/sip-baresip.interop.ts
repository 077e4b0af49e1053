import { type ChildProcess, spawn } from "node:child_process";
import { once } from "node:events";
import { mkdirSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { afterAll, beforeAll, expect, test } from "vitest";
import { freePort } from "../src/node/free-port.ts";
import { dialLocal } from "../src/peertls-core/loopback.ts";
import { appPassword, eventOf, localCa, type Pair, startPair, watched } from "./pair.ts";

let pair: Pair;

beforeAll(async () => {
  pair = await startPair();
});

afterAll(() => pair[Symbol.asyncDispose]());

interface Baresip {
  child: ChildProcess;
  shows(text: string | RegExp): Promise<void>;
  /** Types a command, by the program's control port. */
  type(command: string, params: string): Promise<void>;
}

/** Bob's baresip, pointed at Bob's own node and nothing else. */
async function baresip(transport: "udp" | "tcp" | "tls"): Promise<Baresip> {
  const { stage, bob } = pair;
  const folder = join(stage.folder, `baresip-${transport}`);
  mkdirSync(folder);
  const control = await freePort("127.0.0.1", 0);
  const server = bob.ports[transport === "tls" ? "sips" : "sip"]?.port;
  writeFileSync(
    join(folder, "config"),
    [
      `sip_listen 127.0.0.1:${await freePort("127.0.0.1", 0)}`,
      `sip_cafile ${localCa(bob)}`,
      "sip_verify_server yes",
      "net_interface 127.0.0.1",
      "module_path /usr/lib/baresip/modules",
      ...["uuid.so", "account.so"].map((module) => `module_tmp ${module}`),
      ...["contact.so", "menu.so", "ctrl_tcp.so"].map((module) => `module_app ${module}`),
      `ctrl_tcp_listen 127.0.0.1:${control}`,
      "",
    ].join("\n"),
  );
  const password = await appPassword(stage, bob);
  const outbound = `sip:127.0.0.1:${server};transport=${transport}`;
  writeFileSync(
    join(folder, "accounts"),
    `<sip:bob@beta.test;transport=${transport}>;auth_user=bob;auth_pass=${password};outbound="${outbound}";regint=60\n`,
  );
  writeFileSync(join(folder, "contacts"), '"Alice" <sip:alice@alpha.test>\n');
  writeFileSync(join(folder, "current_contact"), "sip:alice@alpha.test");
  const child = spawn("baresip", ["-f", folder, "-s", "-v"], { stdio: ["ignore", "pipe", "pipe"] });
  const { shows } = watched(child);
  return {
    child,
    shows,
    async type(command, params) {
      const socket = await dialLocal({ host: "127.0.0.1", port: control }, AbortSignal.timeout(5_000));
      const text = JSON.stringify({ command, params, token: "1" });
      socket.write(`${Buffer.byteLength(text)}:${text},`);
      await once(socket, "data");
      socket.destroy();
    },
  };
}

async function end({ child }: Baresip): Promise<void> {
  if (child.exitCode !== null || child.signalCode !== null) return;
  const exited = once(child, "exit");
  child.kill("SIGTERM");
  await exited;
}

test.each(["udp", "tcp", "tls"] as const)(
  "baresip registered at Bob's node by %s shows Alice's message, and what is typed in it reaches Alice",
  async (transport) => {
    const { stage, alice } = pair;
    const phone = await baresip(transport);
    try {
      await phone.shows(/SIP\/2\.0 200 OK[\s\S]*?CSeq: \d+ REGISTER/);
      await stage.command(alice, "send", "bob@beta.test", `Hello by ${transport}`);
      await phone.shows(`\r\n\r\nHello by ${transport}`);
      await phone.type("message", `typed by ${transport}`);
      const { from } = await eventOf(stage, alice, "item.received", (one) => one.title === `typed by ${transport}`);
      expect(from).toBe("bob@beta.test");
    } finally {
      await end(phone);
    }
  },
);
