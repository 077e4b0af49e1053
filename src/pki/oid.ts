/** An object identifier in dotted decimal, as `2.5.4.3`. */
export type Oid = string;

/** Attribute types of distinguished names (RFC 4519, RFC 2985). */
export const attributeType = {
  commonName: "2.5.4.3",
  surname: "2.5.4.4",
  serialNumber: "2.5.4.5",
  countryName: "2.5.4.6",
  localityName: "2.5.4.7",
  stateOrProvinceName: "2.5.4.8",
  streetAddress: "2.5.4.9",
  organizationName: "2.5.4.10",
  organizationalUnitName: "2.5.4.11",
  title: "2.5.4.12",
  givenName: "2.5.4.42",
  userId: "0.9.2342.19200300.100.1.1",
  domainComponent: "0.9.2342.19200300.100.1.25",
  emailAddress: "1.2.840.113549.1.9.1",
} as const;

/** Certificate extensions (RFC 5280 §4.2). */
export const extensionType = {
  subjectKeyIdentifier: "2.5.29.14",
  keyUsage: "2.5.29.15",
  subjectAltName: "2.5.29.17",
  issuerAltName: "2.5.29.18",
  basicConstraints: "2.5.29.19",
  nameConstraints: "2.5.29.30",
  crlDistributionPoints: "2.5.29.31",
  certificatePolicies: "2.5.29.32",
  policyMappings: "2.5.29.33",
  authorityKeyIdentifier: "2.5.29.35",
  policyConstraints: "2.5.29.36",
  extendedKeyUsage: "2.5.29.37",
  freshestCrl: "2.5.29.46",
  inhibitAnyPolicy: "2.5.29.54",
  authorityInfoAccess: "1.3.6.1.5.5.7.1.1",
  ocspNoCheck: "1.3.6.1.5.5.7.48.1.5",
} as const;

/** Extensions of revocation lists (RFC 5280 §5.2). */
export const crlExtension = {
  crlNumber: "2.5.29.20",
  deltaCrlIndicator: "2.5.29.27",
  issuingDistributionPoint: "2.5.29.28",
  authorityKeyIdentifier: "2.5.29.35",
} as const;

/** Extensions of their entries (RFC 5280 §5.3). */
export const crlEntryExtension = {
  reasonCode: "2.5.29.21",
  invalidityDate: "2.5.29.24",
  certificateIssuer: "2.5.29.29",
} as const;

/** Extended key usages (RFC 5280 §4.2.1.12; sipDomain: RFC 5924). */
export const extendedKeyUsage = {
  any: "2.5.29.37.0",
  serverAuth: "1.3.6.1.5.5.7.3.1",
  clientAuth: "1.3.6.1.5.5.7.3.2",
  codeSigning: "1.3.6.1.5.5.7.3.3",
  emailProtection: "1.3.6.1.5.5.7.3.4",
  ocspSigning: "1.3.6.1.5.5.7.3.9",
  sipDomain: "1.3.6.1.5.5.7.3.20",
} as const;

/** Access methods of authorityInfoAccess (RFC 5280 §4.2.2.1). */
export const accessMethod = {
  ocsp: "1.3.6.1.5.5.7.48.1",
  caIssuers: "1.3.6.1.5.5.7.48.2",
} as const;

/** OCSP (RFC 6960 §4.2.1, §4.4.1). */
export const ocspType = {
  basicResponse: "1.3.6.1.5.5.7.48.1.1",
  nonce: "1.3.6.1.5.5.7.48.1.2",
} as const;

/** Content types (RFC 5652), as far as certs-only messages have them. */
export const contentType = {
  data: "1.2.840.113549.1.7.1",
  signedData: "1.2.840.113549.1.7.2",
} as const;

/** otherName type of an internationalised mailbox (RFC 9598). */
export const smtpUtf8Mailbox = "1.3.6.1.5.5.7.8.9";

/** Public key algorithms as they stand in a SubjectPublicKeyInfo. */
export const keyAlgorithm = {
  rsaEncryption: "1.2.840.113549.1.1.1",
  rsassaPss: "1.2.840.113549.1.1.10",
  ecPublicKey: "1.2.840.10045.2.1",
  ed25519: "1.3.101.112",
  ed448: "1.3.101.113",
  x25519: "1.3.101.110",
  x448: "1.3.101.111",
} as const;

/** Named curves (RFC 5480 §2.1.1.1). */
export const namedCurve = {
  p256: "1.2.840.10045.3.1.7",
  p384: "1.3.132.0.34",
  p521: "1.3.132.0.35",
} as const;

/** Digest algorithms (RFC 5754). */
export const digestAlgorithm = {
  sha1: "1.3.14.3.2.26",
  sha256: "2.16.840.1.101.3.4.2.1",
  sha384: "2.16.840.1.101.3.4.2.2",
  sha512: "2.16.840.1.101.3.4.2.3",
} as const;

/** Signature algorithms (RFC 4055, RFC 5758, RFC 8410); the SHA-1 ones are named so that they can be refused by name. */
export const signatureAlgorithm = {
  sha1WithRsa: "1.2.840.113549.1.1.5",
  sha256WithRsa: "1.2.840.113549.1.1.11",
  sha384WithRsa: "1.2.840.113549.1.1.12",
  sha512WithRsa: "1.2.840.113549.1.1.13",
  rsassaPss: "1.2.840.113549.1.1.10",
  ecdsaWithSha256: "1.2.840.10045.4.3.2",
  ecdsaWithSha384: "1.2.840.10045.4.3.3",
  ecdsaWithSha512: "1.2.840.10045.4.3.4",
  ed25519: "1.3.101.112",
  ed448: "1.3.101.113",
} as const;

/** Mask generation function of RSA-PSS and RSA-OAEP (RFC 8017 appendix B.2.1). */
export const mgf1 = "1.2.840.113549.1.1.8";

/** Those of which certificates are made. */
export const namedOids: readonly Oid[] = [
  attributeType,
  extensionType,
  extendedKeyUsage,
  accessMethod,
  keyAlgorithm,
  namedCurve,
  digestAlgorithm,
  signatureAlgorithm,
].flatMap((names): Oid[] => Object.values(names));
