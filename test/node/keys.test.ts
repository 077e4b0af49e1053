import { expect, test } from "vitest";
import { configSchema, type PeerConfig } from "../../src/node/config.ts";
import { type OwnKeys, sealSigner } from "../../src/node/keys.ts";
import { makeTestDomain } from "../support/pki.ts";

test("what is sealed is signed by the AUTH key, in the way that the setting says", () => {
  const auth = { ...makeTestDomain({ domain: "example.test" }).bad("rsa"), renewAfter: new Date(0) };
  const keys: OwnKeys = { auth, encryption: [], uuid: "" };
  const config = (smime?: object) => {
    const peer = { identity: "a@example.test", name: "A", directory: { host: "::1", anchor: "root.pem" } };
    return configSchema.parse({ peer: { ...peer, ...(smime === undefined ? {} : { smime }) } }).peer as PeerConfig;
  };
  const { privateKey, certificate, chain } = auth;
  expect(sealSigner(keys, config())).toEqual({ privateKey, certificate, chain, rsaSignature: "pkcs1" });
  expect(sealSigner(keys, config({ rsaSignature: "pss" }))).toMatchObject({ certificate, rsaSignature: "pss" });
});
