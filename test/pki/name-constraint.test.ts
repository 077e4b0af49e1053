import { describe, expect, test } from "vitest";
import { parseCertificate } from "../../src/pki/certificate.ts";
import * as der from "../../src/pki/der.ts";
import {
  encodeDirectoryName,
  encodeDnsName,
  encodeRfc822Name,
  encodeSmtpUtf8Mailbox,
  encodeUri,
  type GeneralName,
  readGeneralNames,
} from "../../src/pki/general-name.ts";
import { parseIdentity } from "../../src/pki/identity.ts";
import { issueCertificate } from "../../src/pki/issue.ts";
import { encodeName, type RdnTemplate } from "../../src/pki/name.ts";
import { constrainedNames, namesAllowed } from "../../src/pki/name-constraint.ts";
import { attributeType } from "../../src/pki/oid.ts";
import { authTemplate, makeEcKey, makeTestDomain } from "../support/pki.ts";

const home = makeTestDomain({ domain: "example.test" });
const { commonName, countryName, emailAddress, userId } = attributeType;

/** A leaf with these names and nothing else. */
function names(subjectAltNames: readonly Uint8Array[], subject: readonly RdnTemplate[] = []) {
  const template = authTemplate(parseIdentity("a@example.test"), home.now, home.issuing, makeEcKey());
  const bytes = issueCertificate(
    { ...template, subjectAltNames, subject: encodeName(subject) },
    home.issuing.privateKey,
  );
  return constrainedNames(parseCertificate(bytes));
}

const general = (...encoded: Uint8Array[]): GeneralName[] =>
  encoded.length === 0 ? [] : readGeneralNames(Buffer.concat(encoded), 256);

function allowed(of: ReturnType<typeof names>, permitted: Uint8Array[], excluded: Uint8Array[] = []): boolean | string {
  const constraints = { permitted: general(...permitted), excluded: general(...excluded) };
  return namesAllowed(of, constraints, { left: 1000 });
}

const mail = encodeRfc822Name;
const base = (n: number, text: string): Buffer => der.implicitPrimitive(n, Buffer.from(text, "latin1"));
const ip = (...octets: number[]): Buffer => der.implicitPrimitive(7, Buffer.from(octets));

describe("a name within and outside of a permitted subtree (RFC 5280 §4.2.1.10)", () => {
  test.each<[string, Uint8Array, Uint8Array, boolean]>([
    ["mail: host", mail("a@x.test"), mail("x.test"), true],
    ["mail: host in other case", mail("a@X.Test"), mail("x.TEST"), true],
    ["mail: host below", mail("a@sub.x.test"), mail("x.test"), false],
    ["mail: dot, host below", mail("a@sub.x.test"), mail(".x.test"), true],
    ["mail: dot, the host itself", mail("a@x.test"), mail(".x.test"), false],
    ["mail: a longer host", mail("a@evilx.test"), mail("x.test"), false],
    ["mail: one mailbox", mail("A@x.test"), mail("a@x.test"), true],
    ["mail: another mailbox", mail("b@x.test"), mail("a@x.test"), false],
    ["mail: nothing is every host", mail("a@x.test"), base(1, ""), true],
    ["mail: two @", mail("a@evil.test@x.test"), mail("x.test"), true], // the host is x.test; no identity comes of it
    ["mail: NUL before the host's end", base(1, "a@evil.test\0.x.test"), mail(".x.test"), false],
    ["mail: no @", mail("x.test"), mail("x.test"), false],
    ["SmtpUTF8Mailbox: host", encodeSmtpUtf8Mailbox("ü@x.test"), mail("x.test"), true],
    ["SmtpUTF8Mailbox: other host", encodeSmtpUtf8Mailbox("ü@y.test"), mail("x.test"), false],
    ["SmtpUTF8Mailbox: U-label", encodeSmtpUtf8Mailbox("ü@bücher.test"), mail("xn--bcher-kva.test"), true],
    ["sip user: host", encodeUri("sip:a@x.test"), mail("x.test"), true],
    ["sip user: other host", encodeUri("sip:a@y.test"), mail("x.test"), false],
    ["sips user with parameters: other host", encodeUri("SIPS:a@y.test:5061;a=b@x.test"), mail("x.test"), false],
    ["sip domain is no mail address", encodeUri("sip:y.test"), mail("x.test"), true],
    ["DNS: the name", encodeDnsName("x.test"), encodeDnsName("X.test"), true],
    ["DNS: below", encodeDnsName("a.b.x.test"), encodeDnsName("x.test"), true],
    ["DNS: a longer name", encodeDnsName("evilx.test"), encodeDnsName("x.test"), false],
    ["DNS: dot, below", encodeDnsName("a.x.test"), encodeDnsName(".x.test"), true],
    ["DNS: dot, the name itself", encodeDnsName("x.test"), encodeDnsName(".x.test"), false],
    ["DNS: a wildcard below", encodeDnsName("*.x.test"), encodeDnsName("x.test"), true],
    ["DNS: a wildcard above", encodeDnsName("*.test"), encodeDnsName("x.test"), false],
    ["DNS: not a name", base(2, "x.test\0"), base(2, ""), false],
    ["URI: host", encodeUri("https://x.test/y"), encodeUri("x.test"), true],
    ["URI: host below", encodeUri("https://a.x.test/"), encodeUri("x.test"), false],
    ["URI: dot, host below", encodeUri("https://a.x.test:443?q#f"), encodeUri(".x.test"), true],
    ["URI: user before the host", encodeUri("https://x.test@y.test/"), encodeUri("x.test"), false],
    ["URI: @ behind the host", encodeUri("https://y.test/@x.test"), encodeUri("x.test"), false],
    ["URI: backslash", encodeUri("https://y.test\\@x.test"), encodeUri("x.test"), false],
    ["URI: an IPv4 address", encodeUri("https://192.0.2.1/"), base(6, ""), false],
    ["URI: an IPv6 address", encodeUri("https://[2001:db8::1]/"), base(6, ""), false],
    ["URI: no authority", encodeUri("urn:x.test"), encodeUri("x.test"), false],
    ["URI: sip host", encodeUri("sip:y@x.test;transport=tls"), encodeUri("x.test"), true],
    ["URI: sip without a user", encodeUri("sips:x.test:5061"), encodeUri("x.test"), true],
    ["URI: sip of another host", encodeUri("sip:x.test@y.test"), encodeUri("x.test"), false],
    ["IP: within", ip(192, 0, 2, 9), ip(192, 0, 2, 0, 255, 255, 255, 0), true],
    ["IP: outside", ip(192, 0, 3, 9), ip(192, 0, 2, 0, 255, 255, 255, 0), false],
    ["IP: version 4 in version 6", ip(192, 0, 2, 9), ip(...Array<number>(32).fill(0)), false],
    ["IP: version 6", ip(...Array<number>(16).fill(1)), ip(...Array<number>(32).fill(0)), true],
    ["IP: five octets", ip(192, 0, 2, 9, 9), ip(192, 0, 2, 0, 255, 255, 255, 0), false],
    [
      "directory: within",
      encodeDirectoryName(
        encodeName([
          [countryName, "DE"],
          [commonName, "A"],
        ]),
      ),
      encodeDirectoryName(encodeName([[countryName, "de"]])),
      true,
    ],
    [
      "directory: outside",
      encodeDirectoryName(
        encodeName([
          [countryName, "AT"],
          [commonName, "A"],
        ]),
      ),
      encodeDirectoryName(encodeName([[countryName, "DE"]])),
      false,
    ],
    ["another form is not bound", encodeDnsName("x.test"), mail("y.test"), true],
    ["an otherName that nobody can judge, of the constrained type", other("1.2.3"), other("1.2.3"), false],
    ["an otherName of another type", other("1.2.4"), other("1.2.3"), true],
    ["a registeredID under a constraint of its form", base(8, "*"), base(8, "*"), false],
  ])("%s", (_, name, permitted, result) => {
    expect(allowed(names([name]), [permitted])).toBe(result);
  });

  test("one of several permitted subtrees is enough, for each name", () => {
    const two = [mail("x.test"), mail("y.test")];
    expect(allowed(names([mail("a@x.test"), mail("b@y.test")]), two)).toBe(true);
    expect(allowed(names([mail("a@x.test"), mail("b@z.test")]), two)).toBe(false);
  });
});

describe("a name within an excluded subtree", () => {
  test.each<[string, Uint8Array, Uint8Array, boolean]>([
    ["mail", mail("a@x.test"), mail("x.test"), false],
    ["mail elsewhere", mail("a@y.test"), mail("x.test"), true],
    ["mail that cannot be judged", base(1, "a@\0"), mail("x.test"), false],
    ["DNS below", encodeDnsName("a.x.test"), encodeDnsName("x.test"), false],
    ["DNS: a wildcard that covers the excluded name", encodeDnsName("*.test"), encodeDnsName("x.test"), false],
    ["DNS: a wildcard elsewhere", encodeDnsName("*.y.test"), encodeDnsName("x.test"), true],
    ["IP", ip(192, 0, 2, 9), ip(192, 0, 2, 0, 255, 255, 255, 0), false],
  ])("%s", (_, name, excluded, result) => {
    expect(allowed(names([name]), [], [excluded])).toBe(result);
  });

  test("excluded wins over permitted", () => {
    expect(allowed(names([encodeDnsName("a.x.test")]), [encodeDnsName("x.test")], [encodeDnsName("a.x.test")])).toBe(
      false,
    );
  });
});

describe("the subject is bound as well", () => {
  test.each<[string, RdnTemplate[], boolean]>([
    ["emailAddress inside", [[emailAddress, "a@x.test"]], true],
    ["emailAddress outside", [[emailAddress, "a@y.test"]], false],
    [
      "emailAddress outside, hidden in a multi-valued RDN",
      [
        [
          [commonName, "A"],
          [emailAddress, "a@y.test"],
        ],
      ],
      false,
    ],
    ["UID inside", [[userId, "a@x.test"]], true],
    ["UID outside", [[userId, "a@y.test"]], false],
    ["UID that is only a word", [[userId, "a"]], true],
    ["common name outside", [[commonName, "a@y.test"]], true], // never read as an identity
  ])("%s, beside a good rfc822Name", (_, subject, result) => {
    expect(allowed(names([mail("a@x.test")], subject), [mail("x.test")])).toBe(result);
  });

  test("its name as directoryName", () => {
    const germany = encodeDirectoryName(encodeName([[countryName, "DE"]]));
    expect(
      allowed(
        names(
          [],
          [
            [countryName, "DE"],
            [commonName, "A"],
          ],
        ),
        [germany],
      ),
    ).toBe(true);
    expect(allowed(names([], [[commonName, "A"]]), [germany])).toBe(false);
    expect(allowed(names([], []), [germany])).toBe(true); // no name, nothing to bind
  });
});

test("the budget ends the comparing", () => {
  const constraints = { permitted: general(mail("x.test"), mail("y.test")), excluded: [] };
  const budget = { left: 5 };
  expect(namesAllowed(names([mail("a@x.test"), mail("b@x.test")]), constraints, budget)).toBe(true);
  expect(namesAllowed(names([mail("a@x.test")]), constraints, budget)).toBe("too-complex");
});

function other(type: string): Buffer {
  return der.implicitConstructed(0, der.oid(type), der.explicit(0, der.nullValue()));
}
