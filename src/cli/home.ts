import type { Command } from "commander";
import { type Home, homeAt } from "../node/home.ts";

export function homeOf(command: Command): Home {
  return homeAt(command.optsWithGlobals<{ home?: string }>().home, process.env);
}
