import type { CommandTable } from "./commands.ts";
import { otherProtocol } from "./data-channel.ts";
import { FACTS, TREE_FACTS } from "./listing.ts";
import { REPLIES, reply } from "./reply.ts";
import type { Session } from "./session.ts";

/** Transfer parameters (RFC 959 §4.1.2, RFC 2428, RFC 3659 §5). */
export const parameterCommands: CommandTable = {
  TYPE: {
    argument: "needed",
    run({ state }, argument) {
      switch (argument.toUpperCase().replaceAll(" ", "")) {
        case "A":
        case "AN":
        case "L7":
          state.type = "A";
          return reply(200, "Type set to: ASCII.");
        case "I":
        case "L8":
          state.type = "I";
          return reply(200, "Type set to: Binary.");
        default:
          return reply(504, `Unsupported type "${argument.slice(0, 64)}".`);
      }
    },
  },
  STRU: {
    argument: "needed",
    run(_session, argument) {
      const structure = argument.toUpperCase();
      if (structure === "F") return reply(200, "File transfer structure set to: F.");
      return structure === "R" || structure === "P" ? REPLIES.structureOther : REPLIES.structure;
    },
  },
  MODE: {
    argument: "needed",
    run(_session, argument) {
      const mode = argument.toUpperCase();
      if (mode === "S") return reply(200, "Transfer mode set to: S");
      return mode === "B" || mode === "C" ? REPLIES.modeOther : REPLIES.mode;
    },
  },
  EPSV: {
    argument: "any",
    async run(session, argument) {
      if (argument.toUpperCase() === "ALL") {
        session.state.epsvOnly = true;
        return reply(200, "EPSV ALL ok.");
      }
      if (argument !== "") {
        const refused = /^\d+$/.test(argument)
          ? otherProtocol(session.door.localAddress, argument)
          : REPLIES.restInvalid;
        if (refused !== undefined) return refused;
      }
      return announce(session, "EPSV");
    },
  },
  PASV: {
    argument: "none",
    run(session) {
      if (session.state.epsvOnly) return REPLIES.epsvOnly;
      if (session.door.kind === "peer") return REPLIES.onlyEpsv;
      const refused = otherProtocol(session.door.localAddress, "1");
      return refused ?? announce(session, "PASV");
    },
  },
  PORT: { argument: "needed", run: (session) => active(session) },
  EPRT: { argument: "needed", run: (session) => active(session) },
  REST: {
    argument: "needed",
    run({ state }, argument) {
      if (!/^\d{1,15}$/.test(argument)) return REPLIES.restInvalid;
      if (state.type === "A") return REPLIES.restInAscii;
      state.restart = Number(argument);
      return reply(350, `Restarting at position ${state.restart}.`);
    },
  },
  ALLO: {
    argument: "needed",
    run({ door }, argument) {
      const size = /^(\d{1,15})(?: R \d{1,15})?$/i.exec(argument)?.[1];
      if (size === undefined) return REPLIES.restInvalid;
      if (Number(size) > door.maxFileBytes) return reply(552, "Exceeded storage allocation.");
      return reply(200, "ALLO ok.");
    },
  },
  OPTS: {
    argument: "needed",
    beforeLogin: true,
    run(session, argument) {
      const [name = "", ...words] = argument.split(" ");
      const value = words.join(" ");
      switch (name.toUpperCase()) {
        case "UTF8":
        case "UTF-8":
          return /^(?:ON)?$/i.test(value) ? reply(200, "UTF8 is always on.") : REPLIES.optsInvalid;
        case "MLST": {
          if (session.state.tree === undefined) return REPLIES.loginFirst;
          if (words.length > 1) return reply(501, "Invalid number of arguments.");
          const asked = value.toLowerCase().split(";");
          const chosen = [...FACTS, ...TREE_FACTS].filter((fact) => asked.includes(fact));
          session.state.facts = new Set(chosen);
          return reply(200, `MLST OPTS ${chosen.map((fact) => `${fact};`).join("")}`.trimEnd());
        }
        default:
          return REPLIES.optsUnknown;
      }
    },
  },
};

async function announce(session: Session, kind: "EPSV" | "PASV"): Promise<undefined> {
  session.announce(await session.door.announce(kind, session));
  return undefined;
}

function active(session: Session) {
  if (session.state.epsvOnly) return REPLIES.epsvOnly;
  return session.door.kind === "peer" ? REPLIES.onlyEpsv : REPLIES.noActive;
}
