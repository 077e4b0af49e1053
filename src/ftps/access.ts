import type { CommandTable } from "./commands.ts";
import { quoted, resolvePath } from "./path.ts";
import { REPLIES, reply } from "./reply.ts";

/** Access control (RFC 959 §4.1.1) and its security extensions (RFC 2228, RFC 4217). */
export const accessCommands: CommandTable = {
  USER: {
    argument: "needed",
    beforeLogin: true,
    atOnce: true,
    run(session, name) {
      if (session.state.tree !== undefined) session.loggedOut();
      return session.door.user(session, name);
    },
  },
  PASS: {
    argument: "any",
    beforeLogin: true,
    atOnce: true,
    run(session, password) {
      if (session.state.tree !== undefined)
        return session.door.kind === "peer" ? reply(230, "Login successful.") : REPLIES.alreadyIn;
      if (session.state.named === undefined) return REPLIES.userFirst;
      return session.door.pass(session, password);
    },
  },
  AUTH: {
    argument: "needed",
    beforeLogin: true,
    run(session, mechanism) {
      if (session.state.secured) return reply(503, "Already using TLS.");
      if (!/^TLS(?:-C)?$/i.test(mechanism)) return reply(504, "Only AUTH TLS is supported.");
      return session.door.secure?.(session);
    },
  },
  PBSZ: {
    argument: "needed",
    beforeLogin: true,
    run({ state }) {
      if (!state.secured) return reply(503, "PBSZ not allowed on insecure control connection.");
      state.bufferSizeSet = true;
      return reply(200, "PBSZ=0 successful.");
    },
  },
  PROT: {
    argument: "needed",
    beforeLogin: true,
    run({ state, door }, level) {
      if (!state.secured) return reply(503, "PROT not allowed on insecure control connection.");
      if (!state.bufferSizeSet) return reply(503, "You must issue the PBSZ command prior to PROT.");
      switch (level.toUpperCase()) {
        case "P":
          state.protection = "P";
          return reply(200, "Protection set to Private");
        case "C":
          if (door.kind === "peer") return reply(534, "Data is protected here: PROT P.");
          state.protection = "C";
          return reply(200, "Protection set to Clear");
        case "S":
        case "E":
          return reply(536, `PROT ${level.toUpperCase()} unsupported.`);
        default:
          return reply(504, "Unrecognized PROT type (use C or P).");
      }
    },
  },
  CCC: {
    argument: "none",
    beforeLogin: true,
    run: () => reply(534, "The control connection stays protected."),
  },
  QUIT: {
    argument: "none",
    beforeLogin: true,
    atOnce: true,
    run(session) {
      session.quit();
      return REPLIES.goodbye;
    },
  },
  CWD: {
    argument: "any",
    run: (session, argument) => changeFolder(session, argument === "" ? "/" : argument),
  },
  CDUP: { argument: "none", run: (session) => changeFolder(session, "..") },
};

async function changeFolder(session: Parameters<CommandTable[string]["run"]>[0], text: string) {
  const path = resolvePath(session.state.cwd, text);
  const entry = await session.tree.entry(path, session.signal);
  if (entry.kind !== "folder") return REPLIES.notFolder;
  session.state.cwd = path;
  return reply(250, `${quoted(path)} is the current directory.`);
}
