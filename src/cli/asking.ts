import { Command } from "commander";
import { ask } from "./client.ts";
import { homeOf } from "./home.ts";
import { visible, visibleJson, visibleLine } from "./terminal.ts";

const ASK_MS = 30_000;

export type Show = (result: never) => string;

/** A receipt's state, as the node tells it. */
export interface Status {
  state: string;
  why?: string;
  reason?: string;
  detail?: string;
}

/** A command that asks the running node one thing and shows the answer; `--json` prints it as it came. */
export function asking(spec: {
  name: string;
  arguments?: [string, string][];
  options?: [string, string][];
  about: string;
  example: string;
  method: string;
  params?: (args: string[], options: Record<string, string | undefined>) => object;
  show: Show;
}): Command {
  const command = new Command(spec.name).description(spec.about);
  for (const [name, about] of spec.arguments ?? []) command.argument(name, about);
  for (const [flags, about] of spec.options ?? []) command.option(flags, about);
  return withJson(command, spec.example).action(async (...all: unknown[]) => {
    const self = all.at(-1) as Command;
    const args = (spec.arguments ?? []).map((_argument, at) => String(all[at]));
    const result = await ask<never>(
      homeOf(self).control,
      spec.method,
      spec.params?.(args, self.opts()) ?? {},
      AbortSignal.timeout(ASK_MS),
    );
    print(self, result, spec.show);
  });
}

/** What every command that asks has: `--json` and an example. */
export function withJson(command: Command, example: string): Command {
  return command.option("--json", "print JSON").addHelpText("after", `\nExample:\n  sixtalk ${example}`);
}

/** As JSON on one line, if that was asked for, else for people. Either way nothing in it can steer the terminal. */
export function print(command: Command, result: unknown, show: Show): void {
  const asJson = command.opts<{ json?: boolean }>().json === true;
  process.stdout.write(`${asJson ? visibleJson(result) : visible(show(result as never))}\n`);
}

/** What became of something, in the words of the receipt and no more. */
export function told(status: Status | undefined): string {
  if (status === undefined) return "unknown";
  const more = status.why ?? status.reason;
  return more === undefined ? status.state : `${status.state}: ${more.replaceAll("-", " ")}`;
}

export const json: Show = (result) => visibleJson(result, 2);

/** One line for each, whatever stands in it. */
export const list =
  <T>(line: (one: T) => string, empty: string) =>
  (result: T[]) =>
    result.length === 0 ? empty : result.map((one) => visibleLine(line(one))).join("\n");
