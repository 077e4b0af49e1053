import { expect, test } from "vitest";
import { firstDevice, wayTo } from "../../src/delivery/devices.ts";
import { SuiteError } from "../../src/pki/suite-error.ts";
import type { PeerDevice, PeerRecord } from "../../src/sixid/directory.ts";

function device(label: string): PeerDevice {
  const addresses = [{ host: "2001:db8::1", port: 5061, kind: "interface", priority: 1 }];
  return { fingerprint: `sha256:${label}`, label, addresses } as unknown as PeerDevice;
}

function record(...labels: string[]): PeerRecord {
  return { identity: "bob@b.example", chain: [], devices: labels.map(device) } as unknown as PeerRecord;
}

const running = new AbortController().signal;

test("the first device that takes it ends the search", async () => {
  const tried: string[] = [];
  await firstDevice(record("phone", "desk", "laptop"), running, async ({ label }) => {
    tried.push(label);
    if (label === "phone") throw new SuiteError("unreachable", "phone is off", { fault: "peer" });
  });
  expect(tried).toEqual(["phone", "desk"]);
});

test("when none takes it, the last failure is told", async () => {
  const failed = firstDevice(record("phone", "desk"), running, async ({ label }) => {
    throw new SuiteError(label === "desk" ? "refused-by-peer" : "unreachable", label, { fault: "peer" });
  });
  await expect(failed).rejects.toMatchObject({ code: "refused-by-peer", message: "desk" });
});

test("a record without devices is unreachable for now", async () => {
  await expect(firstDevice(record(), running, async () => undefined)).rejects.toMatchObject({
    code: "unreachable",
    temporary: true,
  });
});

test("once aborted no further device is tried", async () => {
  const stop = new AbortController();
  const tried: string[] = [];
  const failed = firstDevice(record("phone", "desk"), stop.signal, async ({ label }) => {
    tried.push(label);
    stop.abort();
    throw new SuiteError("unreachable", "stopped", { fault: "local" });
  });
  await expect(failed).rejects.toMatchObject({ message: "stopped" });
  expect(tried).toEqual(["phone"]);
});

test("exactly this device of this person is expected, at its addresses", () => {
  const to = record("desk");
  expect(wayTo(device("desk"), to)).toEqual({
    expected: { identity: "bob@b.example", fingerprints: ["sha256:desk"], intermediates: [] },
    routes: [{ kind: "direct", address: { host: "2001:db8::1", port: 5061 } }],
  });
});
