import { describe, expect, test } from "vitest";
import { formatRecovery, parseRecovery, type RecoverySheet } from "../../src/node/recovery.ts";
import { parseIdentity } from "../../src/pki/identity.ts";

const sheet: RecoverySheet = {
  identity: parseIdentity("alice@alpha.test"),
  code: "7K3M-9ABC-DEFG-HJKM-NPQR-STVW-XY",
  rootHash: "0123456789abcdef0123456789abcdef",
};
const link =
  "sixtalk-recovery:alice@alpha.test?code=7K3M-9ABC-DEFG-HJKM-NPQR-STVW-XY&root=0123456789abcdef0123456789abcdef";

test("a recovery link is one line, and says where only if the DNS does not", () => {
  expect(formatRecovery(sheet)).toBe(link);
  expect(parseRecovery(` ${link}\n`)).toEqual(sheet);
  for (const host of ["::1", "192.0.2.1"]) {
    const at = { host, port: 4606 };
    expect(parseRecovery(formatRecovery({ ...sheet, at }))).toEqual({ ...sheet, at });
  }
  const other = { ...sheet, identity: parseIdentity("j\u00fcrgen+x%y@alpha.test") };
  expect(parseRecovery(formatRecovery(other))).toEqual(other);
});

describe("no recovery link", () => {
  test.each([
    ["nothing", ""],
    ["an invitation", "sixtalk:alice@alpha.test?code=7K3M&root=0123456789abcdef0123456789abcdef"],
    ["no code", link.replace(/code=[^&]+/, "code=")],
    ["no root", link.replace(/&root=.*/, "")],
    ["a place without a port", `${link}&at=::1`],
    ["a name for a place", `${link}&at=alpha.test:4606`],
    ["nobody", link.replace("alice@alpha.test", "")],
  ])("%s", (_name, text) => {
    expect(() => parseRecovery(text)).toThrow(expect.objectContaining({ code: "syntax" }));
  });
});
