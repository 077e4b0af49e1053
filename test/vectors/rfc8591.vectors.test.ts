import { mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterAll, describe, expect, test } from "vitest";
import { type Certificate, peerCertificate } from "../../src/pki/certificate.ts";
import { Keyring } from "../../src/smime/keyring.ts";
import { peek } from "../../src/smime/peek.ts";
import { read } from "../../src/smime/read.ts";
import { failureOf, flipped, Pieces } from "../support/smime.ts";

// The examples of RFC 8591 §10, S/MIME in SIP and MSRP. Their certificates have expired and their private keys are not given:
// figures 1 and 2 are verified, of 3 (which 4 cuts in two) everything before the ciphertext is read.

const directory = mkdtempSync(join(tmpdir(), "sixtalk-rfc8591-"));
afterAll(() => rmSync(directory, { recursive: true }));

const hex = (text: string) => Buffer.from(text.replaceAll(/\s+/g, ""), "hex");

const figure1 = hex(`
  308202f606092a864886f70d010702a08202e7308202e3020101310d300b0609 608648016503040201305306092a864886f70d010701a0460444436f6e74656e
  742d547970653a20746578742f706c61696e0d0a0d0a576174736f6e2c20636f 6d652068657265202d20492077616e7420746f2073656520796f752e0d0aa082
  016b308201673082010da003020102020900b8793ec0e4c21530300a06082a86 48ce3d040302302631143012060355040a0c0b6578616d706c652e636f6d310e
  300c06035504030c05416c696365301e170d3137313231393233313230355a17 0d3138313231393233313230355a302631143012060355040a0c0b6578616d70
  6c652e636f6d310e300c06035504030c05416c6963653059301306072a8648ce 3d020106082a8648ce3d03010703420004d87b54729f2c22feebd9ddba0efa40
  642297a6093887a4dae7990b23f87fa7ed99db8cf5a314f2ee64106ef1ed61db fc0a4b91c953cbd022a751b914807bb794a324302230200603551d1104193017
  86157369703a616c696365406578616d706c652e636f6d300a06082a8648ce3d 040302034800304502207879be1c27f846276fdf15e333e53c6f17a757388a02
  cb7b8ae481c1641ae7a9022100ff99cd9c94076c82b02fea3b1350179a4b7752 e16fa30a3f9ab29650b0e2818931820109308201050201013033302631143012
  060355040a0c0b6578616d706c652e636f6d310e300c06035504030c05416c69 6365020900b8793ec0e4c21530300b0609608648016503040201a06930180609
  2a864886f70d010903310b06092a864886f70d010701301c06092a864886f70d 010905310f170d3139303132363036313335345a302f06092a864886f70d0109
  0431220420ef778fc940d5e6dc2576f47a599b3126195a9f1a227adaf35fa22c 050d8d195a300a06082a8648ce3d04030204473045022005fdc2b55b0f444a46
  be468dfc7ef3b7de30019ef0952a223e8521890b35bb4e02210090e43a9d9846 cf2af8159c5c0ef48848fa2f39f998b1bb99b52a6fc6c776f2c8`);

const figure2 = hex(`
  3082018706092a864886f70d010702a082017830820174020101310d300b0609 608648016503040201305306092a864886f70d010701a0460444436f6e74656e
  742d547970653a20746578742f706c61696e0d0a0d0a576174736f6e2c20636f 6d652068657265202d20492077616e7420746f2073656520796f752e0d0a3182
  0109308201050201013033302631143012060355040a0c0b6578616d706c652e 636f6d310e300c06035504030c05416c696365020900b8793ec0e4c21530300b
  0609608648016503040201a069301806092a864886f70d010903310b06092a86 4886f70d010701301c06092a864886f70d010905310f170d3139303132363036
  313335345a302f06092a864886f70d01090431220420ef778fc940d5e6dc2576 f47a599b3126195a9f1a227adaf35fa22c050d8d195a300a06082a8648ce3d04
  03020447304502203607275592d30c8c5a931041a01804d60c638ac9a8080918 87172a0887c8d4aa022100cd9e14bd21817336e9052fe590af2e2bcde16dd3e9
  48d0f5f78a969e26382682`);

/** Up to the ciphertext. */
const figure3 = hex(`
  30820790060b2a864886f70d0109100117a082077f3082077b0201003182024f 3082024b0201003033302631143012060355040a0c0b6578616d706c652e636f
  6d310e300c06035504030c05416c69636502090083f50bb70bd5c40e300d0609 2a864886f70d010101050004820200759a61b4ddf1f1af24668005635e476110
  fa2723c1b9e45484b6d33e8387de967dc5e0cafb35571a56a1975cb550e7be31 c131da80fb731024845babb8d64cac26040424d9330561c843999415dd644b3c
  ad95072f71451393c99f282c4883bd0ccc5dd54b931464e00a6e55e592c51a68 de1062516ec7d3ca8e764bb8ac789a88377765ef8dc36c0a6ed3ecae5285cac6
  a29d5059445719a1bdcf906e0ff37e2c2ef0f4ec6225100cc062e1c748963bbc 88b8e3dfcf714073729dd5c7583e758acf3d186f2fa417be22c37c9a76c6b427
  29aad27f73ae44ac98474d1eeb48948c12a403d0b3ce08a218d6af456924897c c5c9664f6dfeb3f18141158dfc3b84090aa60380aa865137e1699c5c81974167
  9d7a3c90ba79e6d7d5c8d89bb54a667423e43b0b7d6f78c0b4ab67bc343662a6 35fe595f1149c53950cac2e0ba318c227e6f76a8d940400fd3d3ea1c8ecea003
  dcce2f1fb00f5cea335de1303fcbf93d8e1cbfd682f19beb624bacd1d7b8f580 f114a13b890894fb4044a5daa764b7f8c5ff92949452b35aeb9639b8ad63c051
  5c95ccc6f823c2201067ea2262413fef397d48f7b6143f842ae8e1a48cad3ae0 1abaa3cf9ee7e36620e05cca0611bfac00eef1a498f2d259b9f0f7da83ef6f1b
  061f387c2dc48c8b5dbaca862308f32f47925165c9e5ebb467799884918dd697 b447f4c407989b889b0c2e9580af783082050f06092a864886f70d010701301e
  06096086480165030401063011040c4d8757222eac5294117f0c120201108082 04e0`);

const watson = "Content-Type: text/plain\r\n\r\nWatson, come here - I want to see you.\r\n";

async function told(bytes: Buffer, candidates: readonly Certificate[] = []) {
  const options = { keys: new Keyring([]), candidates, directory, maxBytes: 10_000 };
  await using found = await read(new Pieces(bytes, 7), options);
  const signers = found.layers.flatMap((layer) =>
    layer.kind === "signed" ? layer.signatures.map(({ certificate }) => certificate) : [],
  );
  const content = found.content !== undefined && "bytes" in found.content ? found.content.bytes.toString() : undefined;
  return { protection: found.protection, content, signers };
}

describe("RFC 8591", () => {
  test("figures 1 and 2: signed by Alice, whose certificate the second leaves out", async () => {
    expect([figure1.length, figure2.length]).toEqual([762, 395]); // as the Content-Length of each says
    const first = await told(figure1);
    expect([first.protection, first.content]).toEqual(["signed", watson]);
    const [alice] = first.signers;
    if (alice === undefined) throw new Error("no signer");
    expect(peerCertificate(alice).identities).toEqual([{ identity: "alice@example.com", source: "sipUri" }]);
    expect(await told(figure2)).toEqual({ protection: "none", content: watson, signers: [] });
    expect(await told(figure2, [alice])).toEqual({ protection: "signed", content: watson, signers: [alice] });
    const changed = flipped(figure1, figure1.indexOf("Watson"));
    expect((await told(changed)).protection).toBe("none");
  });

  test("figure 3: sealed to Alice by RSA v1.5 and AES-128-GCM; without her key it is not for us", async () => {
    expect(await peek(new Pieces(figure3, 7))).toEqual({
      type: "auth-enveloped",
      cipher: "aes-128-gcm",
      recipients: [{ kind: "transport", ids: [{ issuer: expect.anything(), serial: hex("0083f50bb70bd5c40e") }] }],
    });
    const failure = await failureOf(told(figure3));
    expect(failure.code).toBe("seal-not-for-us");
  });
});
