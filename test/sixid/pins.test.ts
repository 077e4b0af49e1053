import { describe, expect, test } from "vitest";
import type { Fingerprint } from "../../src/pki/certificate.ts";
import { parseIdentity } from "../../src/pki/identity.ts";
import { checkAddresses, checkContinuity, type Pin } from "../../src/sixid/pins.ts";
import type { VerifiedAddresses, VerifiedIdentity } from "../../src/sixid/verify.ts";

const identity = parseIdentity("alice@alpha.test");
const a = "a".repeat(64) as Fingerprint;
const b = "b".repeat(64) as Fingerprint;
const c = "c".repeat(64) as Fingerprint;
const pin: Pin = {
  uuid: "u",
  seq: 5,
  hash: "h5",
  devices: [a, b],
  encryption: ["e1"],
  addressSeqs: { [a]: 100 },
  changed: false,
  reply: { identity: "", devices: {}, maxAge: 0 },
  verifiedAt: 0,
};

function record(o: {
  seq: number;
  hash: string;
  uuid?: string;
  devices?: string[];
  signer?: string;
  encryption?: string[];
}) {
  const devices = o.devices ?? [a, b];
  return {
    identity,
    hash: o.hash,
    body: { id: o.uuid ?? "u", seq: o.seq, devices: devices.map((id) => ({ id })), signer: o.signer ?? devices[0] },
    encryption: (o.encryption ?? ["e1"]).map((fingerprint) => ({ fingerprint })),
  } as unknown as VerifiedIdentity;
}

describe("a record is held against the pin", () => {
  test("the first is taken as it is", () => {
    expect(checkContinuity(undefined, record({ seq: 9, hash: "x" }))).toEqual({ trust: "first", events: [] });
  });

  test.each<[string, Parameters<typeof record>[0], string]>([
    ["a lower sequence", { seq: 4, hash: "h4" }, "record-rollback"],
    ["a lower sequence with the pinned content", { seq: 4, hash: "h5" }, "record-rollback"],
    ["the same sequence with another content", { seq: 5, hash: "other" }, "record-fork"],
    ["another uuid", { seq: 6, hash: "h6", uuid: "v" }, "record-rejected"],
    ["another uuid with a lower sequence", { seq: 1, hash: "h1", uuid: "v" }, "record-rejected"],
  ])("%s is refused", (_name, told, code) => {
    expect(() => checkContinuity(pin, record(told))).toThrow(expect.objectContaining({ code, fault: "service" }));
  });

  test.each<[string, Parameters<typeof record>[0], string, object[]]>([
    ["the same again", { seq: 5, hash: "h5" }, "pinned", []],
    ["a step without a change of keys", { seq: 6, hash: "h6" }, "pinned", []],
    ["several steps at once, signed by a pinned device", { seq: 9, hash: "h9" }, "pinned", []],
    [
      "a device more, added by a pinned one",
      { seq: 6, hash: "h6", devices: [a, b, c] },
      "pinned",
      [{ type: "deviceAdded", identity, fingerprint: c }],
    ],
    [
      "a device less",
      { seq: 6, hash: "h6", devices: [a] },
      "pinned",
      [{ type: "deviceRemoved", identity, fingerprint: b }],
    ],
    [
      "another encryption key",
      { seq: 6, hash: "h6", encryption: ["e2"] },
      "pinned",
      [{ type: "encryptionChanged", identity }],
    ],
    [
      "a step that a new device signed",
      { seq: 6, hash: "h6", devices: [a, c], signer: c },
      "changed",
      [
        { type: "deviceAdded", identity, fingerprint: c },
        { type: "deviceRemoved", identity, fingerprint: b },
        { type: "rootReplaced", identity },
      ],
    ],
  ])("%s", (_name, told, trust, events) => {
    expect(checkContinuity(pin, record(told))).toEqual({ trust, events });
  });

  test("a changed root stays changed until the owner agrees, whatever follows", () => {
    const changed = { ...pin, changed: true };
    expect(checkContinuity(changed, record({ seq: 5, hash: "h5" })).trust).toBe("changed");
    expect(checkContinuity(changed, record({ seq: 6, hash: "h6" })).trust).toBe("changed");
  });
});

describe("addresses are held against the highest sequence of that device", () => {
  const addresses = (device: string, seq: number) =>
    ({ jws: "", body: { device, seq } }) as unknown as VerifiedAddresses;

  test("a lower one is a rollback", () => {
    expect(() => checkAddresses(pin, identity, addresses(a, 99))).toThrow(
      expect.objectContaining({ code: "record-rollback" }),
    );
  });

  test.each<[string, Pin | undefined, string, number]>([
    ["the same", pin, a, 100],
    ["a higher one", pin, a, 101],
    ["another device's", pin, b, 1],
    ["the first ever", undefined, a, 1],
  ])("%s is taken", (_name, known, device, seq) => {
    expect(() => checkAddresses(known, identity, addresses(device, seq))).not.toThrow();
  });
});
