import { accessCommands } from "./access.ts";
import { parameterCommands } from "./parameters.ts";
import type { Reply } from "./reply.ts";
import { serviceCommands } from "./service.ts";
import type { Session } from "./session.ts";

/** One command of RFC 959 §4.1 and its successors. */
export interface CommandRule {
  argument: "none" | "needed" | "any";
  /** Also for whoever is not logged in. */
  beforeLogin?: true;
  /** Beside a running transfer; others wait for its end. */
  atOnce?: true;
  /** @returns the reply, if it is not told on the way. @throws SuiteError, told by `replyOf` */
  run(session: Session, argument: string): Promise<Reply | undefined> | Reply | undefined;
}

export type CommandTable = Readonly<Record<string, CommandRule>>;

/** RFC 775's names, which old programs still use. */
const ALIASES: Readonly<Record<string, string>> = { XCWD: "CWD", XCUP: "CDUP", XPWD: "PWD", XMKD: "MKD", XRMD: "RMD" };

const COMMANDS: ReadonlyMap<string, CommandRule> = new Map(
  Object.entries({ ...accessCommands, ...parameterCommands, ...serviceCommands(() => names()) }),
);

/** @param verb upper case */
export function commandOf(verb: string): CommandRule | undefined {
  return COMMANDS.get(ALIASES[verb] ?? verb);
}

function names(): readonly string[] {
  return [...COMMANDS.keys()];
}
