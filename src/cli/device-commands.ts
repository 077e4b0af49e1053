import type { Command } from "commander";
import { loadConfig } from "../node/config.ts";
import { lockHome } from "../node/home-lock.ts";
import type { HeldDevices, OwnDevice } from "../node/own-devices.ts";
import { addDevice } from "../node/rekey.ts";
import { silentLog } from "../pki/log.ts";
import { SuiteError } from "../pki/suite-error.ts";
import { asking } from "./asking.ts";
import { homeOf } from "./home.ts";
import { commandLine } from "./self.ts";
import { visibleLine } from "./terminal.ts";

const ADD_MS = 120_000;

/** The devices of one person: which there are, one more, one less. */
export function devicesCommand(): Command {
  const devices = asking({
    name: "devices",
    about: "the devices that your record lists, and those that want to take their place",
    example: "devices",
    method: "devices",
    show: ({ devices: listed, held }: { devices: OwnDevice[]; held: HeldDevices[] }) =>
      [...listed.map(lineOf), ...held.map(heldLine)].map(visibleLine).join("\n"),
  });
  devices
    .command("add")
    .description(
      "make this home, which came out of a backup, a device of its own beside the one that the backup is of; before its first start",
    )
    .addHelpText("after", "\nExample:\n  sixtalk --home ./laptop devices add")
    .action(async (_o: object, command: Command) => {
      const home = homeOf(command);
      const { peer: config, dns } = loadConfig(home.config);
      if (config === undefined) throw new SuiteError("config-invalid", "this home is no person's", { fault: "local" });
      using _lock = lockHome(home);
      const o = { home, config, dnsServers: dns.servers, clock: () => new Date(), log: silentLog };
      const certificate = await addDevice(o, AbortSignal.timeout(ADD_MS));
      process.stdout.write(
        `This is a device of ${config.identity} now; its key is sha256:${certificate.fingerprint}.\nNext: ${commandLine(home)} start\n`,
      );
    });
  devices.addCommand(
    asking({
      name: "remove",
      arguments: [["<device>", "its fingerprint, or the beginning of it"]],
      about:
        "shut out a device that is lost or given away: its certificate is revoked, your record does not list it any more",
      example: "devices remove 5be1a0c4",
      method: "devices.remove",
      params: ([device]) => ({ device }),
      show: ({ removed }: { removed: string }) => `sha256:${removed} is shut out`,
    }),
  );
  for (const decision of ["approve", "refuse"] as const)
    devices.addCommand(
      asking({
        name: decision,
        arguments: [["<id>", "as `devices` tells it, or the beginning of it"]],
        about:
          decision === "approve"
            ? "agree that a home which enrolled anew takes the place of all your devices, this one too"
            : "keep your devices: what wants to take their place does not",
        example: `devices ${decision} 0c55e71f`,
        method: "devices.decide",
        params: ([id]) => ({ id, decision }),
        show: () => "done",
      }),
    );
  return devices;
}

function lineOf({ fingerprint, label, self, addresses, seen, certificateEnds }: OwnDevice): string {
  return [
    `sha256:${fingerprint}`,
    label,
    self ? "this device" : "",
    addresses.length === 0 ? "not reachable" : addresses.join(", "),
    seen === undefined ? "never heard from" : `heard from ${new Date(seen).toISOString()}`,
    `certificate until ${new Date(certificateEnds).toISOString()}`,
  ]
    .filter((part) => part !== "")
    .join("  ");
}

function heldLine({ id, signer, until }: HeldDevices): string {
  return `${id}  wants to take the place of all these, with the key sha256:${signer}; it does from ${new Date(until).toISOString()}, unless you refuse`;
}
