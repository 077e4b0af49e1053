import { Command } from "commander";
import { type Actor, Stage } from "./demo-stage.ts";
import { demoSteps } from "./demo-steps.ts";
import { commandLine } from "./self.ts";

export function demoCommand(): Command {
  return new Command("demo")
    .description(
      "two domains, Alice, Bob and a stranger on this machine, with real processes and sockets: ten steps, each checked",
    )
    .option("--once", "end after the last step; exit status 1 if one failed")
    .addHelpText("after", "\nExample:\n  sixtalk demo --once")
    .action(async (o: { once?: boolean }) => {
      const stage = await Stage.build();
      const interrupted = new Promise<void>((resolve) => {
        process.once("SIGINT", () => resolve());
        process.once("SIGTERM", () => resolve());
      });
      try {
        const { steps, actors } = demoSteps(stage);
        const played = play(steps);
        const ok = await Promise.race([played, interrupted.then(() => undefined)]);
        if (ok === undefined) return;
        process.exitCode = ok ? 0 : 1;
        if (!ok || o.once === true) return;
        await settings(stage, actors());
        await interrupted;
      } finally {
        await stage.strike();
      }
    });
}

async function play(steps: ReturnType<typeof demoSteps>["steps"]): Promise<boolean> {
  const began = performance.now();
  for (const [index, step] of steps.entries()) {
    process.stdout.write(`${String(index + 1).padStart(2)}. ${step.title}\n`);
    try {
      process.stdout.write(`    ok: ${await step.run()}\n`);
    } catch (error) {
      process.stdout.write(`    FAILED: ${error instanceof Error ? error.message : String(error)}\n`);
      return false;
    }
  }
  process.stdout.write(`All ${steps.length} steps hold, in ${((performance.now() - began) / 1000).toFixed(1)} s.\n`);
  return true;
}

/** What the programs of the two have to be told. */
async function settings(stage: Stage, people: Record<string, Actor>): Promise<void> {
  for (const [user, actor] of Object.entries(people)) {
    const { identity } = await stage.ask<{ identity: string }>(actor, "status");
    const { password } = await stage.ask<{ password: string }>(actor, "app-passwords.create", { label: "demo" });
    const port = (name: string) => actor.ports[name]?.port;
    process.stdout.write(
      `\n${identity}\n` +
        `  user ${user}, password ${password}; CA certificate for TLS: ${actor.home.anchors}/local-ca.pem\n` +
        `  mail (outgoing): localhost ${port("smtps")} TLS, or ${port("submission")} STARTTLS\n` +
        `  SIP:             127.0.0.1 ${port("sip")} UDP or TCP, ${port("sips")} TLS; domain ${identity.split("@")[1]}\n` +
        `  FTP:             127.0.0.1 ${port("ftp")}, explicit TLS; put files into /peers/<user@domain>/\n` +
        `  command line:    ${commandLine(actor.home)} inbox\n`,
    );
  }
  process.stdout.write("\nThe nodes stay up until Ctrl-C; then everything is removed.\n");
}
