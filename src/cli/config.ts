import { Command } from "commander";
import { configJsonSchema, loadConfig } from "../node/config.ts";
import { homeOf } from "./home.ts";

export function configCommand(): Command {
  const config = new Command("config").description("the configuration file");
  config
    .command("check")
    .description("tell whether sixtalk.yaml is valid, and where it is not")
    .addHelpText("after", "\nExample:\n  sixtalk config check")
    .action((_options, command: Command) => {
      const home = homeOf(command);
      loadConfig(home.config);
      process.stdout.write(`${home.config} is valid\n`);
    });
  config
    .command("schema")
    .description("print the JSON schema of sixtalk.yaml, for editors")
    .addHelpText("after", "\nExample:\n  sixtalk config schema > sixtalk.schema.json")
    .action(() => {
      process.stdout.write(configJsonSchema());
    });
  return config;
}
