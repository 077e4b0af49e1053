import { randomBytes } from "node:crypto";
import { readFileSync } from "node:fs";
import { expect, test } from "vitest";
import { parse } from "yaml";
import { configSchema } from "../../src/node/config.ts";
import { PeerNode } from "../../src/node/node.ts";
import { parseIdentity } from "../../src/pki/identity.ts";
import type { Pin } from "../../src/sixid/pins.ts";
import { enrolPerson, startDomain } from "../support/people.ts";
import { recordLog } from "../support/record-log.ts";
import { temporaryFolder } from "../support/tmp.ts";

test("a directory that tells an older, another or somebody else's record is named in the log and in an event", async () => {
  await using folder = await temporaryFolder();
  const domain = await startDomain(folder.path, "alpha.test");
  const home = await enrolPerson(folder.path, domain, "alice");
  await enrolPerson(folder.path, domain, "bob");
  const log = recordLog();
  const config = configSchema.parse(parse(readFileSync(home.config, "utf8")));
  const node = await PeerNode.start({ home, config, log, clock: () => new Date(), cut: () => undefined });
  try {
    const bob = parseIdentity("bob@alpha.test");
    const look = () => node.directory.lookup(bob, { fresh: true }, AbortSignal.timeout(5_000));
    await look();
    const seen = node.state.find(bob) as Pin;
    const lies: [Partial<Pin>, string][] = [
      [{ seq: seen.seq + 1 }, "record-rollback"],
      [{ hash: randomBytes(32).toString("base64url") }, "record-fork"],
      [{ uuid: "018f0000-0000-7000-8000-000000000000" }, "record-rejected"],
    ];
    for (const [before, code] of lies) {
      node.state.put(bob, { ...seen, ...before });
      await expect(look()).rejects.toMatchObject({ code });
      for await (const { body } of node.store.events.follow(0, AbortSignal.timeout(5_000)))
        if (body.type === "record.rejected" && body.code === code) {
          expect(body.identity).toBe(bob);
          break;
        }
      expect(log.lines.some(({ level, fields }) => level === "warn" && fields["code"] === code)).toBe(true);
      expect(node.state.find(bob)).toMatchObject(before); // what was known before stays in force
    }
  } finally {
    await node.stop();
    await domain.server.stop();
  }
});
