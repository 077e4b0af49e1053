import { Command } from "commander";
import { asSuiteError, SuiteError } from "../pki/suite-error.ts";
import { configCommand } from "./config.ts";
import { contentCommands } from "./content-commands.ts";
import { demoCommand } from "./demo.ts";
import { devicesCommand } from "./device-commands.ts";
import { domainCommand } from "./domain.ts";
import { initCommand } from "./init.ts";
import { Interrupted } from "./interruptible.ts";
import { keyCommands } from "./key-commands.ts";
import { nodeCommands } from "./node-commands.ts";
import { recoveryCommands } from "./recovery-commands.ts";
import { rekeyCommand } from "./rekey.ts";
import { sealCommands } from "./seal-commands.ts";
import { startCommand } from "./start.ts";
import { visible } from "./terminal.ts";

process.umask(0o077); // whatever this program writes is its owner's alone

const program = new Command("sixtalk")
  .description("your own communication node: messages, mail and files, straight from person to person")
  .option("--home <directory>", "where configuration, keys and state lie (default: $SIXTALK_HOME or ~/.sixtalk)")
  .showHelpAfterError()
  .addHelpText(
    "after",
    "\nExample:\n  sixtalk init 'sixtalk://[::1]:4604/alice@alpha.test?…'\n  sixtalk start\n  sixtalk send bob@beta.test 'Hello Bob'",
  );

for (const command of [
  startCommand(),
  initCommand(),
  ...contentCommands(),
  ...nodeCommands(),
  devicesCommand(),
  ...sealCommands(),
  ...keyCommands(),
  ...recoveryCommands(),
  rekeyCommand(),
  domainCommand(),
  configCommand(),
  demoCommand(),
])
  program.addCommand(command);

// Whoever reads our output may have had enough, as `head` has.
process.stdout.on("error", () => process.exit(0));

try {
  await program.parseAsync(process.argv);
} catch (thrown) {
  const error = asSuiteError(thrown);
  process.stderr.write(visible(`sixtalk: ${error.message}${detailsOf(error)}\n`));
  if (error !== thrown) process.stderr.write(`${thrown instanceof Error ? thrown.stack : String(thrown)}\n`);
  process.exit(error instanceof Interrupted ? error.exitStatus : 1); // whatever was opened before it failed must not keep the process alive
}

function detailsOf(error: SuiteError): string {
  const { problems, ...rest } = error.details;
  if (typeof problems === "string") return `\n${problems}`;
  const told = Object.entries(rest).map(([name, value]) => `${name}: ${value}`);
  if (error.cause instanceof SuiteError) told.push(error.cause.message);
  return told.length === 0 ? "" : ` (${told.join(", ")})`;
}
