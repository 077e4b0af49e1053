import { existsSync, realpathSync } from "node:fs";
import { homedir } from "node:os";
import { delimiter, dirname, join, relative } from "node:path";
import { fileURLToPath } from "node:url";
import type { Home } from "../node/home.ts";

/** The launcher's file. */
export const LAUNCHER = join(dirname(dirname(dirname(fileURLToPath(import.meta.url)))), "bin", "sixtalk.js");

/**
 * How `sixtalk` is typed here and now, so that a command that we print works when it is copied: by its bare name if that is on
 * PATH, else by its path. With `--home` unless it is the standard one.
 */
export function commandLine(home: Home | undefined, environment: NodeJS.ProcessEnv = process.env): string {
  const onPath = (environment["PATH"] ?? "")
    .split(delimiter)
    .map((folder) => join(folder, "sixtalk"))
    .some((file) => existsSync(file) && realpathSync(file) === realpathSync(LAUNCHER));
  const near = relative(process.cwd(), LAUNCHER);
  const path = near.startsWith("..") ? LAUNCHER : `./${near}`;
  const name = onPath ? "sixtalk" : quoted(path);
  const standard = environment["SIXTALK_HOME"] ?? join(homedir(), ".sixtalk");
  return home === undefined || home.directory === standard ? name : `${name} --home ${quoted(home.directory)}`;
}

/** As a POSIX shell takes it for one word. */
export function quoted(word: string): string {
  return /^[\w@%+=:,./-]+$/.test(word) ? word : `'${word.replaceAll("'", "'\\''")}'`;
}

/** What to do after coming back from a backup where the old device goes on: two nodes with one device's key disturb each other. */
export function besideTheOld(home: Home): string {
  return `If your old device goes on, so that you have two: ${commandLine(home)} devices add\n`;
}
