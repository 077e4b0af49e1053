import { readdirSync, readFileSync } from "node:fs";
import { join } from "node:path";
import { describe, expect, test } from "vitest";
import type { AlgorithmPolicy } from "../../src/pki/algorithm.ts";
import { parseCertificate } from "../../src/pki/certificate.ts";
import { parseRevocationList } from "../../src/pki/crl.ts";
import { validatePath } from "../../src/pki/path.ts";
import { anyPolicy, type PolicyQuestion } from "../../src/pki/policy.ts";
import { requireRevocation } from "../../src/pki/revocation.ts";
import { sharedFolder } from "../support/shared.ts";

const folder = sharedFolder("vectors/nist-pkits");

// The edition of 2001 signs with SHA-1 and RSA-1024. No DSA.
const algorithms: AlgorithmPolicy = { digests: new Set(["sha1", "sha256"]), minRsaBits: 1024, maxRsaBits: 8192 };
// Certificates end in 2011, deltas begin in 2003.
const time = new Date("2008-01-01T00:00:00Z");

/** Tests 4.1.4 and 4.1.5 are valid; we refuse DSA, and Node cannot load the inherited parameters of the second. */
const exceptions = new Map([
  ["ValidDSASignaturesTest4EE.crt", "algorithm 0"],
  ["ValidDSAParameterInheritanceTest5EE.crt", "algorithm 0"],
]);

const policy = (n: number) => `2.16.840.1.101.3.2.1.48.${n}`;
const explicit = { explicit: true };
const within = (...numbers: number[]): PolicyQuestion => ({ acceptable: numbers.map(policy) });

describe.skipIf(folder === undefined)("NIST PKITS", () => {
  const directory = (name: string) => join(folder ?? "", name);
  const filesIn = (name: string) => (folder === undefined ? [] : readdirSync(directory(name)));
  const certificate = (file: string) => parseCertificate(readFileSync(join(directory("certs"), file)));
  const candidates = filesIn("certs")
    .filter((file) => !file.endsWith("EE.crt"))
    .map(certificate);
  const lists = filesIn("crls").map((file) => parseRevocationList(readFileSync(join(directory("crls"), file))));

  const judge = (file: string, policies: PolicyQuestion = {}): string => {
    const result = validatePath({
      leaf: certificate(file),
      candidates,
      anchors: [{ name: "PKITS", certificate: certificate("TrustAnchorRootCertificate.crt") }],
      time,
      purpose: "any",
      algorithms,
      policies,
      revocation: requireRevocation({ lists, signers: candidates, time, graceMs: 0, algorithms }),
    });
    return result.ok ? "ok" : `${result.reason} ${result.at}`;
  };
  const verdict = (file: string, policies?: PolicyQuestion) => (judge(file, policies) === "ok" ? "valid" : "invalid");

  const table = folder === undefined ? "" : readFileSync(directory("expected.tsv"), "utf8");
  const rows = table.trim().split("\n").slice(1);
  const columns: readonly (readonly [string, number, PolicyQuestion])[] = [
    ["any policy, none needed", 1, {}],
    ["any policy, one needed", 2, { ...explicit, acceptable: [anyPolicy] }],
    ["policy 1 needed", 3, { ...explicit, ...within(1) }],
    ["policy 2 needed", 4, { ...explicit, ...within(2) }],
    ["policy 3 needed", 5, { ...explicit, ...within(3) }],
  ];

  test("there are 223 leaves, one of them for two of the 224 tests, and 173 lists", () => {
    expect([rows.length, lists.length]).toEqual([223, 173]);
    expect(filesIn("certs").filter((file) => file.endsWith("EE.crt"))).toHaveLength(223);
  });

  test.each(columns)("every leaf is judged as expected: %s", (_, column, policies) => {
    const wrong = rows.flatMap((row) => {
      const [file = "", ...cells] = row.split("\t");
      // A dash: OpenSSL has no answer; these files have tests of their own below.
      const expected = cells[column - 1];
      if (expected === "-" || exceptions.has(file)) return [];
      const found = verdict(file, policies);
      return found === expected ? [] : [`${file}: ${found}, expected ${expected}`];
    });
    expect(wrong).toEqual([]);
  });

  test("the names say the same as the table", () => {
    const named = rows.map((row) => row.split("\t")).filter(([file = ""]) => /^(Valid|Invalid)/.test(file));
    expect(named).toHaveLength(203);
    for (const [file = "", expected] of named) expect(expected).toBe(file.startsWith("Valid") ? "valid" : "invalid");
  });

  test.each([...exceptions])("exception %s: %s", (file, reason) => {
    expect(judge(file)).toBe(reason);
  });

  test("the indirect list that OpenSSL cannot follow (4.14.30) is followed, whatever policy 1 asks", () => {
    const file = "ValidcRLIssuerTest30EE.crt";
    expect(columns.map(([, , policies]) => verdict(file, policies))).toEqual([
      "valid",
      "valid",
      "valid",
      "invalid",
      "invalid",
    ]);
  });

  const same = "AllCertificatesSamePolicies";
  const one = "ValidCertificatePathTest1EE";
  test.each<[string, string, PolicyQuestion, "valid" | "invalid"]>([
    ["4.8.1", one, {}, "valid"],
    ["4.8.1", one, explicit, "valid"],
    ["4.8.1", one, { ...explicit, ...within(1) }, "valid"],
    ["4.8.1", one, { ...explicit, ...within(2) }, "invalid"],
    ["4.8.1", one, { ...explicit, ...within(1, 2) }, "valid"],
    ["4.8.2", "AllCertificatesNoPoliciesTest2EE", {}, "valid"],
    ["4.8.2", "AllCertificatesNoPoliciesTest2EE", explicit, "invalid"],
    ["4.8.3", "DifferentPoliciesTest3EE", {}, "valid"],
    ["4.8.3", "DifferentPoliciesTest3EE", explicit, "invalid"],
    ["4.8.3", "DifferentPoliciesTest3EE", { ...explicit, ...within(1, 2) }, "invalid"],
    ["4.8.4", "DifferentPoliciesTest4EE", {}, "invalid"],
    ["4.8.5", "DifferentPoliciesTest5EE", {}, "invalid"],
    ["4.8.6", "OverlappingPoliciesTest6EE", {}, "valid"],
    ["4.8.6", "OverlappingPoliciesTest6EE", within(1), "valid"],
    ["4.8.6", "OverlappingPoliciesTest6EE", within(2), "invalid"],
    ["4.8.7", "DifferentPoliciesTest7EE", {}, "invalid"],
    ["4.8.8", "DifferentPoliciesTest8EE", {}, "invalid"],
    ["4.8.9", "DifferentPoliciesTest9EE", {}, "invalid"],
    ["4.8.10", `${same}Test10EE`, {}, "valid"],
    ["4.8.10", `${same}Test10EE`, within(1), "valid"],
    ["4.8.10", `${same}Test10EE`, within(2), "valid"],
    ["4.8.11", "AllCertificatesanyPolicyTest11EE", {}, "valid"],
    ["4.8.11", "AllCertificatesanyPolicyTest11EE", within(1), "valid"],
    ["4.8.12", "DifferentPoliciesTest12EE", {}, "invalid"],
    ["4.8.13", `${same}Test13EE`, within(1), "valid"],
    ["4.8.13", `${same}Test13EE`, within(2), "valid"],
    ["4.8.13", `${same}Test13EE`, within(3), "valid"],
    ["4.8.14", "AnyPolicyTest14EE", within(1), "valid"],
    ["4.8.14", "AnyPolicyTest14EE", within(2), "invalid"],
    ["4.8.15", "UserNoticeQualifierTest15EE", { ...explicit, ...within(1) }, "valid"],
    ["4.8.15", "UserNoticeQualifierTest15EE", { ...explicit, ...within(2) }, "invalid"],
    ["4.8.16", "UserNoticeQualifierTest16EE", { ...explicit, ...within(1) }, "valid"],
    ["4.8.16", "UserNoticeQualifierTest16EE", { ...explicit, ...within(2) }, "invalid"],
    ["4.8.17", "UserNoticeQualifierTest17EE", {}, "valid"],
    ["4.8.18", "UserNoticeQualifierTest18EE", within(1), "valid"],
    ["4.8.18", "UserNoticeQualifierTest18EE", within(2), "valid"],
    ["4.8.19", "UserNoticeQualifierTest19EE", {}, "valid"],
    ["4.8.20", "CPSPointerQualifierTest20EE", { ...explicit, ...within(1) }, "valid"],
    ["4.10.1", "ValidPolicyMappingTest1EE", within(1), "valid"],
    ["4.10.1", "ValidPolicyMappingTest1EE", within(2), "invalid"],
    ["4.10.1", "ValidPolicyMappingTest1EE", { inhibitMapping: true }, "invalid"],
    ["4.10.3", "ValidPolicyMappingTest3EE", within(1), "invalid"],
    ["4.10.3", "ValidPolicyMappingTest3EE", within(2), "valid"],
    ["4.10.5", "ValidPolicyMappingTest5EE", within(1), "valid"],
    ["4.10.5", "ValidPolicyMappingTest5EE", within(6), "invalid"],
    ["4.10.6", "ValidPolicyMappingTest6EE", within(1), "valid"],
    ["4.10.6", "ValidPolicyMappingTest6EE", within(6), "invalid"],
    ["4.10.12", "ValidPolicyMappingTest12EE", within(1), "valid"],
    ["4.10.12", "ValidPolicyMappingTest12EE", within(2), "valid"],
    ["4.12.3", "inhibitAnyPolicyTest3EE", {}, "valid"],
    ["4.12.3", "inhibitAnyPolicyTest3EE", { inhibitAny: true }, "invalid"],
  ])("%s %s with %o: %s", (_, file, policies, expected) => {
    expect(verdict(`${file}.crt`, policies)).toBe(expected);
  });

  const invalid = filesIn("certs").filter((file) => /^Invalid|^DifferentPoliciesTest(?!3EE)/.test(file));
  const reasons: readonly (readonly [RegExp, number, RegExp])[] = [
    [/^Invalid(CA|EE)Signature/, 2, /^signature/],
    [/^InvalidDSASignature/, 1, /^algorithm/],
    [/^Invalid(CA|EE|pre2000UTCEE)notAfterDate/, 3, /^expired/],
    [/^Invalid(CA|EE)notBeforeDate/, 2, /^not-yet-valid/],
    [/^InvalidNameChaining/, 2, /^issuer-unknown/],
    // Test 8: the certificate with the key that signs lists signs another certificate, without being a CA's.
    [/^Invalid(MissingbasicConstraints|cAFalse|BasicSelfIssuedCRLSigningKeyTest8)/, 4, /^not-a-ca/],
    [/^InvalidkeyUsage(Not)?CriticalkeyCertSign/, 2, /^key-usage/],
    [/^Invalid(SelfIssued)?pathLen/, 7, /^path-length/],
    [/^Invalid.*nameConstraints/, 22, /^name-constraints/],
    [/^InvalidUnknownCriticalCertificateExtension/, 1, /^critical-extension/],
    [/^DifferentPolicies/, 6, /^policy/],
    [/^Invalid.*(PolicyMapping|MappingFromany|MappingToany|inhibitAny|requireExplicit)/, 23, /^policy/],
    [/^InvalidRevokedCA/, 1, /^revoked 1/],
    [
      /^Invalid(RevokedEE|BasicSelfIssued(OldWithNew|NewWithOld|CRLSigningKeyTest7)|LongSerial|Negative)/,
      6,
      /^revoked/,
    ],
    [/^InvaliddeltaCRLTest[3469]EE/, 4, /^revoked/],
    [/^Invalid(deltaCRLIndicatorNoBase|deltaCRLTest10)/, 2, /^revocation-unknown/],
    [/^InvaliddistributionPointTest[26]/, 2, /^revoked/],
    [/^InvaliddistributionPointTest[389]/, 3, /^revocation-unknown/],
    [/^InvalidonlySomeReasonsTest(15|16|20|21)/, 4, /^revoked/],
    [/^Invalid(onlySomeReasonsTest17|onlyContains)/, 4, /^revocation-unknown/],
    [/^Invalid(IDPwithindirectCRLTest23|cRLIssuerTest3[124])/, 4, /^revoked/],
    [/^Invalid(IDPwithindirectCRLTest26|cRLIssuerTest27|cRLIssuerTest35)/, 3, /^revocation-unknown/],
    [/^InvalidSeparateCertificateandCRLKeysTest20/, 1, /^revoked/],
    [/^InvalidSeparateCertificateandCRLKeysTest21/, 1, /^revocation-unknown/],
    [/^InvalidkeyUsage(Not)?CriticalcRLSign/, 2, /^revocation-unknown/],
    [/^Invalid(MissingCRL|BadCRL|WrongCRL|UnknownCRL|OldCRL|pre2000CRL)/, 9, /^revocation-unknown/],
  ];

  test.each(reasons)("%s: %i files, %s", (pattern, count, reason) => {
    const matching = invalid.filter((file) => pattern.test(file));
    expect(matching).toHaveLength(count);
    for (const file of matching) expect(judge(file), file).toMatch(reason);
  });

  test("no invalid leaf is without its reason above", () => {
    expect(invalid.filter((file) => !reasons.some(([pattern]) => pattern.test(file)))).toEqual([]);
  });
});
