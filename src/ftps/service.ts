import { createHash } from "node:crypto";
import { asSuiteError } from "../pki/suite-error.ts";
import type { CommandTable } from "./commands.ts";
import { timeVal } from "./grammar.ts";
import { FACTS, listingBytes, longLine, mlsx, TREE_FACTS } from "./listing.ts";
import { quoted, resolvePath, type VirtualPath } from "./path.ts";
import { REPLIES, type Reply, reply, replyOf } from "./reply.ts";
import type { Session } from "./session.ts";
import { received, send } from "./transfer.ts";
import type { Entry } from "./tree.ts";

/** Service commands (RFC 959 §4.1.3, RFC 2389, RFC 3659). @param names all commands there are, for HELP */
export function serviceCommands(names: () => readonly string[]): CommandTable {
  return {
    NOOP: { argument: "any", beforeLogin: true, atOnce: true, run: () => reply(200, "I successfully did nothing.") },
    SYST: { argument: "none", beforeLogin: true, run: () => reply(215, "UNIX Type: L8") },
    FEAT: { argument: "none", beforeLogin: true, run: (session) => reply(211, features(session)) },
    HELP: {
      argument: "any",
      beforeLogin: true,
      run(_session, topic) {
        if (topic === "") return reply(214, ["The following commands are recognized:", ...columns(names()), "Done."]);
        const verb = topic.toUpperCase();
        return names().includes(verb) ? reply(214, `Syntax: ${verb}`) : REPLIES.unknownHelp;
      },
    },
    STAT: { argument: "any", atOnce: true, run: (session, text) => status(session, text) },
    ABOR: { argument: "none", atOnce: true, run: (session) => session.abort() },
    PWD: {
      argument: "none",
      run: ({ state }) => reply(257, `${quoted(state.cwd)} is the current directory.`),
    },
    LIST: { argument: "any", run: (session, text) => list(session, "LIST", withoutOptions(text)) },
    NLST: { argument: "any", run: (session, text) => list(session, "NLST", withoutOptions(text)) },
    MLSD: { argument: "any", run: (session, text) => list(session, "MLSD", text) },
    MLST: {
      argument: "any",
      async run(session, text) {
        const path = resolvePath(session.state.cwd, text);
        const entry = await session.tree.entry(path, session.signal);
        return reply(250, [`Listing ${quoted(path)}:`, mlsx(entry, session.state.facts, path), "End MLST."]);
      },
    },
    SIZE: {
      argument: "needed",
      async run(session, text) {
        if (session.state.type === "A") return REPLIES.sizeInAscii;
        const { path, entry } = await file(session, text);
        return entry.size === undefined ? notRetrievable(path) : reply(213, String(entry.size));
      },
    },
    MDTM: {
      argument: "needed",
      async run(session, text) {
        const { path, entry } = await file(session, text);
        return entry.modified === undefined ? notRetrievable(path) : reply(213, timeVal(entry.modified));
      },
    },
    HASH: { argument: "needed", run: hash },
    RETR: { argument: "needed", run: retrieve },
    STOR: { argument: "needed", run: store },
    DELE: {
      argument: "needed",
      async run(session, text) {
        await session.tree.remove(resolvePath(session.state.cwd, text), session.signal);
        return reply(250, "File removed.");
      },
    },
    // No tree has folders or names that a program could change.
    MKD: { argument: "needed", run: () => REPLIES.noPrivilege },
    RMD: { argument: "needed", run: () => REPLIES.noPrivilege },
    RNFR: { argument: "needed", run: () => REPLIES.noPrivilege },
    RNTO: { argument: "needed", run: () => REPLIES.renameFirst },
  };
}

async function retrieve(session: Session, text: string): Promise<Reply | undefined> {
  const { state } = session;
  const from = state.restart;
  state.restart = 0;
  const { path, entry } = await file(session, text);
  const size = entry.size ?? 0;
  if (from > size) return reply(554, `REST position (${from}) > file size (${size}).`);
  const source = await session.tree.read(path, from, session.signal);
  return session.transfer(`RETR ${path}`, async (data, o, signal) => {
    await send(data, source.bytes, o, signal);
    await source.done?.();
    return REPLIES.complete;
  });
}

/** draft-bryan-ftpext-hash: how many bytes, and their SHA-256. The range ends behind the last byte. */
async function hash(session: Session, text: string): Promise<Reply> {
  const { path, entry } = await file(session, text);
  if (entry.kind !== "file") return REPLIES.noSuchFile;
  const known = await session.tree.hash?.(path, session.signal);
  const { size, sha256 } = known ?? (await hashOf(session, path));
  return reply(213, `SHA-256 0-${size} ${sha256} ${path}`);
}

async function hashOf(session: Session, path: VirtualPath): Promise<{ size: number; sha256: string }> {
  const digest = createHash("sha256");
  let size = 0;
  const { bytes } = await session.tree.read(path, 0, session.signal);
  for await (const chunk of bytes) {
    session.signal.throwIfAborted();
    digest.update(chunk);
    size += chunk.length;
  }
  return { size, sha256: digest.digest("hex") };
}

async function store(session: Session, text: string): Promise<Reply | undefined> {
  const { state, door, tree } = session;
  const { restart } = state;
  state.restart = 0;
  const path = resolvePath(state.cwd, text);
  const there = restart > 0 ? ((await tree.unfinished?.(path)) ?? 0) : 0;
  if (restart > there) return reply(554, `REST position (${restart}) > file size (${there}).`);
  if (door.kind === "peer" && state.type === "A") return reply(504, 'Unsupported type "A".');
  await tree.mayWrite(path, session.signal);
  return session.transfer(`STOR ${path}`, async (data, o, signal) => {
    try {
      const { text: done } = await tree.write(path, received(data, o, signal), restart, signal);
      return reply(226, done);
    } catch (error) {
      const refused = replyOf(asSuiteError(error).code);
      // All refusals of a seal look alike: none comes before the upload's end (smime.md §2.7).
      if (refused.code === 553) await readToEnd(received(data, o, signal), door.maxFileBytes);
      throw error;
    }
  });
}

async function readToEnd(rest: AsyncIterable<Uint8Array>, most: number): Promise<void> {
  let bytes = 0;
  for await (const chunk of rest) {
    bytes += chunk.length;
    if (bytes > most) return;
  }
}

async function list(session: Session, how: "LIST" | "NLST" | "MLSD", text: string): Promise<Reply | undefined> {
  const { state, tree } = session;
  const path = resolvePath(state.cwd, text);
  const entry = await tree.entry(path, session.signal);
  if (entry.kind !== "folder" && how === "MLSD") return reply(501, "Not a directory.");
  const entries = entry.kind === "folder" ? await tree.list(path, session.signal) : [entry];
  const now = session.clock();
  const line = (one: Entry): string => {
    if (how === "NLST") return one.name;
    return how === "LIST" ? longLine(one, now) : mlsx(one, state.facts);
  };
  return session.transfer(`${how} ${path}`, async (data, o, signal) => {
    await send(data, asyncOf(listingBytes(entries.map(line))), { ...o, type: "I" }, signal);
    return REPLIES.complete;
  });
}

async function status(session: Session, text: string): Promise<Reply> {
  const { state, transferring } = session;
  if (text === "") {
    const lines = [
      state.tree === undefined ? "Not logged in." : "Logged in.",
      `TYPE: ${state.type}; STRU: F; MODE: S; PROT: ${state.protection}`,
      transferring === undefined
        ? "No data connection."
        : `${transferring.command}: ${transferring.bytes} bytes transferred.`,
    ];
    return reply(211, ["FTP server status:", ...lines, "End of status."]);
  }
  if (/[*?[\]]/.test(text)) return REPLIES.noGlobbing;
  const path = resolvePath(state.cwd, withoutOptions(text));
  const entry = await session.tree.entry(path, session.signal);
  const entries = entry.kind === "folder" ? await session.tree.list(path, session.signal) : [entry];
  const now = session.clock();
  return reply(213, [`Status of ${quoted(path)}:`, ...entries.map((one) => longLine(one, now)), "End of status."]);
}

/** A file; of a folder neither size nor time are told. */
async function file(session: Session, text: string): Promise<{ path: VirtualPath; entry: Entry }> {
  const path = resolvePath(session.state.cwd, text);
  const entry = await session.tree.entry(path, session.signal);
  return { path, entry: entry.kind === "file" ? entry : { ...withoutFacts(entry) } };
}

function withoutFacts({ name, kind, perm }: Entry): Entry {
  return { name, kind, perm };
}

function notRetrievable(path: VirtualPath): Reply {
  return reply(550, `${path} is not retrievable.`);
}

/** Programs ask for `LIST -la`; a name may begin with a hyphen all the same. */
function withoutOptions(text: string): string {
  return text.replace(/^(?:-a|-l|-al|-la)(?: |$)/, "");
}

function features({ door, state }: Session): string[] {
  const facts = [...FACTS, ...TREE_FACTS].map((fact) => `${fact}${state.facts.has(fact) ? "*" : ""};`).join("");
  const all = [
    "EPSV",
    "HASH SHA-256*",
    "MDTM",
    `MLST ${facts}`,
    "PBSZ",
    "PROT",
    "REST STREAM",
    "SIZE",
    "TVFS",
    "UTF8",
    ...door.features,
  ];
  return ["Features supported:", ...all.sort(), "End FEAT."];
}

function columns(names: readonly string[]): string[] {
  const rows: string[] = [];
  for (let at = 0; at < names.length; at += 8) {
    rows.push(
      names
        .slice(at, at + 8)
        .map((name) => name.padEnd(6))
        .join("")
        .trimEnd(),
    );
  }
  return rows;
}

async function* asyncOf(parts: Iterable<Buffer>): AsyncGenerator<Buffer, void, undefined> {
  yield* parts;
}
