import { existsSync, mkdirSync } from "node:fs";
import { homedir } from "node:os";
import { join, resolve } from "node:path";

/** One home directory: configuration, keys and state of one person's node or of one domain's server, or of both. */
export interface Home {
  directory: string;
  config: string;
  keys: string;
  anchors: string;
  state: string;
  delivery: string;
  domain: string;
  log: string;
  control: string;
}

/** `--home`, else SIXTALK_HOME, else ~/.sixtalk. Nothing is made. */
export function homeAt(option: string | undefined, environment: NodeJS.ProcessEnv): Home {
  const directory = resolve(option ?? environment["SIXTALK_HOME"] ?? join(homedir(), ".sixtalk"));
  return {
    directory,
    config: join(directory, "sixtalk.yaml"),
    keys: join(directory, "keys"),
    anchors: join(directory, "anchors"),
    state: join(directory, "state.db"),
    delivery: join(directory, "delivery"),
    domain: join(directory, "domain"),
    log: join(directory, "log"),
    control: join(directory, "control.sock"),
  };
}

/** Makes the directories that are missing, for the owner alone; a directory that is there stays as it is. */
export function makeHome(home: Home): void {
  for (const directory of [home.directory, home.keys, home.anchors, home.delivery, home.log]) {
    if (!existsSync(directory)) mkdirSync(directory, { recursive: true, mode: 0o700 });
  }
}
