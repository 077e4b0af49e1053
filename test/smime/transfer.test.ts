import { describe, expect, test } from "vitest";
import type { Fingerprint } from "../../src/pki/certificate.ts";
import { asSuiteError } from "../../src/pki/suite-error.ts";
import { parseHead, serializeHead } from "../../src/smime/entity.ts";
import {
  checkTransfer,
  MAX_MANIFEST_BYTES,
  type Manifest,
  manifestBytes,
  objectName,
  parseManifest,
  partSizeBy,
  placeOf,
  splitInParts,
  transferField,
  type VerifiedPart,
} from "../../src/smime/transfer.ts";

const transfer = "9f0c".repeat(8);
const digest = (n: number) => n.toString(16).padStart(64, "0");
const alice = "a".repeat(64) as Fingerprint;
const mallory = "b".repeat(64) as Fingerprint;

const codeOf = (run: () => unknown): string => {
  try {
    return `passed: ${JSON.stringify(run())}`;
  } catch (error) {
    return asSuiteError(error).code;
  }
};

describe("the split of a file", () => {
  test.each([
    [1_000, 400, [400, 400, 200]],
    [800, 400, [400, 400]],
    [801, 400, [400, 400, 1]],
    [1, 400, [1]],
  ])("of %d bytes into parts of %d leaves neither gap nor overlap", (total, partBytes, sizes) => {
    const parts = splitInParts(total, partBytes);
    expect(parts.map(({ size }) => size)).toEqual(sizes);
    expect(parts.map(({ offset }) => offset)).toEqual(sizes.map((_, n) => n * partBytes));
  });

  test("has at most 4096 parts", () => {
    expect(splitInParts(4_096, 1)).toHaveLength(4_096);
    expect(codeOf(() => splitInParts(4_097, 1))).toBe("limit-exceeded");
  });

  test("gives each object a name that tells nothing of the file", () => {
    expect([objectName(transfer, "whole"), objectName(transfer, 7), objectName(transfer, "manifest")]).toEqual([
      `${transfer}.p7m`,
      `${transfer}.0007.p7m`,
      `${transfer}.manifest.p7m`,
    ]);
  });
});

describe("the field of a part", () => {
  const place = { transfer, part: 2, of: 3, offset: 1_073_741_824, total: 1_610_612_736 };

  test("is read as it was written, also folded", () => {
    const bytes = serializeHead({ fields: [transferField(place)] });
    expect(bytes.toString()).toContain("\r\n ");
    expect(placeOf(parseHead(bytes))).toEqual(place);
  });

  test("is missing in what is no part", () => {
    expect(placeOf(parseHead(Buffer.from("Subject: x\r\n\r\n")))).toBeUndefined();
  });

  test.each([
    ["another order", `part=0; id=${transfer}; of=2; offset=0; total=9`],
    ["upper case", `id=${transfer.toUpperCase()}; part=0; of=2; offset=0; total=9`],
    ["a part beyond the last", `id=${transfer}; part=2; of=2; offset=0; total=9`],
    ["one part", `id=${transfer}; part=0; of=1; offset=0; total=9`],
    ["too many parts", `id=${transfer}; part=0; of=4097; offset=0; total=9`],
    ["an offset behind the end", `id=${transfer}; part=1; of=2; offset=9; total=9`],
    ["2^53", `id=${transfer}; part=0; of=2; offset=0; total=9007199254740992`],
    ["a sign", `id=${transfer}; part=0; of=2; offset=-1; total=9`],
    ["a leading zero", `id=${transfer}; part=00; of=2; offset=0; total=9`],
    ["more behind it", `id=${transfer}; part=0; of=2; offset=0; total=9; x=1`],
    ["nothing", ""],
  ])("with %s is refused", (_what, value) => {
    expect(codeOf(() => placeOf(parseHead(Buffer.from(`SixTalk-Transfer: ${value}\r\n\r\n`))))).toBe("seal-malformed");
  });

  test("that stands there twice is refused", () => {
    const fields = [transferField(place), transferField(place)];
    expect(codeOf(() => placeOf({ fields }))).toBe("seal-malformed");
  });
});

describe("the place of a part", () => {
  const at = (part: number, of: number, offset: number, total: number) => ({ transfer, part, of, offset, total });

  test.each([
    [at(0, 3, 0, 1_000), 400],
    [at(1, 3, 400, 1_000), 400],
    [at(2, 3, 800, 1_000), 200],
    [at(1, 2, 400, 800), 400],
  ])("%j with %d bytes has parts of 400", (place, size) => {
    expect(partSizeBy(place, size)).toBe(400);
  });

  test.each([
    ["holds too little", at(1, 3, 400, 1_000), 399],
    ["holds too much", at(1, 3, 400, 1_000), 401],
    ["is a last one that is cut", at(2, 3, 800, 1_000), 199],
    ["is a last one that goes over the end", at(2, 3, 800, 1_000), 201],
    ["is empty", at(0, 3, 0, 1_000), 0],
    ["begins behind a gap", at(0, 3, 1, 1_000), 400],
    ["begins between two", at(2, 4, 801, 1_600), 400],
    ["names more parts than fill the file", at(0, 4, 0, 1_000), 400],
    ["names fewer parts than fill the file", at(0, 2, 0, 1_000), 400],
  ])("that %s is refused", (_what, place, size) => {
    expect(codeOf(() => partSizeBy(place, size))).toBe("seal-malformed");
  });
});

const manifest: Manifest = {
  transfer,
  name: "film.mkv",
  mediaType: "video/x-matroska",
  size: 1_000,
  partSize: 400,
  modified: new Date("2026-11-23T09:00:00Z"),
  parts: [400, 400, 200].map((size, n) => ({ size, digest: digest(n) })),
};

describe("a manifest", () => {
  test("is read as it was written, whatever hash the signer's key goes with", () => {
    expect(parseManifest(manifestBytes(manifest))).toEqual(manifest);
    const { modified: _, ...undated } = manifest;
    const sha384 = { ...undated, parts: manifest.parts.map((part) => ({ ...part, digest: "c".repeat(96) })) };
    expect(parseManifest(manifestBytes(sha384))).toEqual(sha384);
    expect(manifestBytes(sha384).toString()).toContain(`"sha384:${"c".repeat(96)}"`);
  });

  test("of 4096 parts fits", () => {
    const parts = Array.from({ length: 4_096 }, () => ({ size: 1, digest: "d".repeat(128) }));
    const longest = { ...manifest, size: 4_096, partSize: 1, parts };
    expect(parseManifest(manifestBytes(longest)).parts).toHaveLength(4_096);
    expect(manifestBytes(longest).length).toBeLessThan(MAX_MANIFEST_BYTES);
  });

  test("gives a name that is safe to use", () => {
    expect(parseManifest(manifestBytes({ ...manifest, name: "../../etc/passwd" })).name).toBe("passwd");
  });

  const json = JSON.parse(manifestBytes(manifest).toString()) as Record<string, unknown> & { parts: object[] };
  const [first, second, third] = json.parts;
  test.each<[string, unknown]>([
    ["another version", { ...json, v: 2 }],
    ["an unknown member", { ...json, extra: 1 }],
    ["no transfer", { ...json, transfer: undefined }],
    ["a transfer of other form", { ...json, transfer: "x" }],
    ["a total that lies", { ...json, size: 1_001 }],
    ["a total that leaves a part out", { ...json, size: 800 }],
    ["2^53 bytes", { ...json, size: 2 ** 53 }],
    ["half a byte", { ...json, size: 999.5 }],
    ["a number as text", { ...json, size: "1000" }],
    ["no parts", { ...json, parts: [] }],
    ["one part", { ...json, size: 400, parts: [first] }],
    ["too many parts", { ...json, size: 4_097, partSize: 1, parts: Array(4_097).fill({ ...first, size: 1 }) }],
    ["parts in another order", { ...json, parts: [third, first, second] }],
    ["a part that overlaps the next", { ...json, parts: [{ ...first, size: 401 }, second, third] }],
    ["a gap between two", { ...json, parts: [{ ...first, size: 399 }, second, third] }],
    ["a last part that is larger than the others", { ...json, parts: [first, { ...second, size: 600 }] }],
    ["an empty part", { ...json, parts: [first, second, { ...third, size: 0 }] }],
    ["a hash that is none of ours", { ...json, parts: [{ ...first, digest: `md5:${"0".repeat(32)}` }, second, third] }],
    ["a digest that is too short", { ...json, parts: [{ ...first, digest: "sha256:00" }, second, third] }],
    ["a media type with a line end", { ...json, mediaType: "text/plain\r\nX: y" }],
    ["an array", []],
  ])("with %s is refused", (_what, value) => {
    expect(codeOf(() => parseManifest(Buffer.from(JSON.stringify(value))))).toBe("seal-malformed");
  });

  test.each([
    ["no JSON", Buffer.from("{")],
    ["no UTF-8", Buffer.from([0x22, 0xff, 0x22])],
    ["too long", Buffer.concat([manifestBytes(manifest), Buffer.alloc(MAX_MANIFEST_BYTES, " ")])],
  ])("that is %s is refused", (_what, bytes) => {
    expect(codeOf(() => parseManifest(bytes))).toBe("seal-malformed");
  });
});

describe("parts and manifest", () => {
  const parts: VerifiedPart[] = manifest.parts.map((one, part) => ({
    place: { transfer, part, of: 3, offset: part * 400, total: 1_000 },
    ...one,
    signer: alice,
  }));
  const changed = (part: number, change: Partial<VerifiedPart>, place: Partial<VerifiedPart["place"]> = {}) =>
    parts.map((one, n) => (n === part ? { ...one, ...change, place: { ...one.place, ...place } } : one));

  test("that agree are the file, in whatever order the parts came", () => {
    expect(checkTransfer(manifest, alice, parts.toReversed())).toBe(true);
  });

  test.each([0, 1, 2])("without part %d are not the file yet", (missing) => {
    expect(checkTransfer(manifest, alice, parts.toSpliced(missing, 1))).toBe(false);
  });

  test.each<[string, VerifiedPart[]]>([
    ["a part that is there twice", [...parts, ...parts.slice(0, 1)]],
    ["a part twice instead of another", [...parts.slice(0, 2), ...parts.slice(0, 1)]],
    ["a part of another transfer", changed(1, {}, { transfer: "0".repeat(32) })],
    ["another count", changed(1, {}, { of: 4 })],
    ["another total", changed(1, {}, { total: 1_001 })],
    ["an offset that overlaps", changed(1, {}, { offset: 399 })],
    ["another size", changed(1, { size: 399 })],
    ["another digest", changed(1, { digest: digest(9) })],
    ["another signer of one part", changed(1, { signer: mallory })],
    ["a part that is not listed", changed(2, {}, { part: 3 })],
    [
      "two parts that changed places",
      [changed(0, {}, { part: 1 })[0], changed(1, {}, { part: 0 })[1]] as VerifiedPart[],
    ],
  ])("with %s are refused", (_what, wrong) => {
    expect(codeOf(() => checkTransfer(manifest, alice, wrong))).toBe("seal-malformed");
  });

  test("of two signers are refused", () => {
    expect(codeOf(() => checkTransfer(manifest, mallory, parts))).toBe("seal-malformed");
  });
});
