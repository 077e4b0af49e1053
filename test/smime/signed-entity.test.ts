import { expect, test } from "vitest";
import { readSignedEntity } from "../../src/smime/signed-entity.ts";

const entityWith = (field: string) =>
  Buffer.from(`Content-Type: multipart/signed; boundary=b\r\n${field}\r\n\r\n--b\r\n\r\n\r\n--b--\r\n`);

async function* once(bytes: Buffer) {
  yield bytes;
}

test.each(["From: mallory@example.test", "X-SixTalk-Seal: sealed; signer=alice@example.test", "Subject: hello"])(
  "an entity that is kept as a whole has no field outside the signature: %s",
  async (field) => {
    const keep = { what: "entity" as const, write: () => Promise.resolve() };
    await expect(readSignedEntity(once(entityWith(field)), keep)).rejects.toMatchObject({
      code: "seal-malformed",
      details: { what: "fields outside the signature" },
    });
  },
);

test("fields that describe the MIME part are no reason to refuse it", async () => {
  const keep = { what: "entity" as const, write: () => Promise.resolve() };
  await expect(readSignedEntity(once(entityWith("MIME-Version: 1.0")), keep)).rejects.not.toMatchObject({
    details: { what: "fields outside the signature" },
  });
});
