import { writeFileSync } from "node:fs";
import { join } from "node:path";
import { expect, test } from "vitest";
import { type Actor, Stage } from "../../src/cli/demo-stage.ts";

test("with the directory down, what is sent says so, and goes on by itself when it is back", async () => {
  const stage = await Stage.build();
  try {
    const [alpha] = (await stage.domains(["alpha.test"])) as [Actor];
    const alice = await stage.person(alpha, "alice", "Alice");
    const bob = await stage.person(alpha, "bob", "Bob");
    await stage.ask(bob, "contacts.add", { identity: "alice@alpha.test", name: "Alice" });
    const file = join(stage.folder, "notes.txt");
    writeFileSync(file, "notes");
    await stage.end(alpha, "SIGKILL");

    // Nobody ever looked Bob up: nothing is known of him but his name.
    expect(await stage.command(alice, "send", "bob@alpha.test", "Hello")).toMatch(/ queued: directory unavailable\n$/);
    const mail = ["mail", "bob@alpha.test", "--subject", "Hello", "--text", "there"];
    expect(await stage.command(alice, ...mail)).toMatch(/ queued: directory unavailable\n$/);
    expect(await stage.command(alice, "file", "bob@alpha.test", file)).toMatch(/ queued: directory unavailable\n$/);
    expect(await stage.command(alice, "queue")).toMatch(
      /^(?:\S+ {2}bob@alpha\.test {2}queued: directory unavailable\n){3}$/,
    );
    expect(await stage.ask(alice, "status")).toMatchObject({ directory: "unavailable" });

    await stage.start(alpha);
    const delivered = new Set<string>();
    for (let after = 0, rounds = 0; delivered.size < 3 && rounds < 60; rounds += 1) {
      const news = await stage.ask<{ seq: number; body: { type: string; state?: string; item?: string } }[]>(
        alice,
        "events",
        { after, waitSeconds: 1 },
      );
      for (const { seq, body } of news) {
        after = seq;
        if (body.type === "receipt.changed" && body.state === "delivered") delivered.add(body.item ?? "");
      }
    }
    const kinds = (await stage.ask<{ kind: string }[]>(bob, "inbox")).map(({ kind }) => kind);
    expect(kinds.toSorted()).toEqual(["file", "mail", "message"]);
  } finally {
    await stage.strike();
  }
});
