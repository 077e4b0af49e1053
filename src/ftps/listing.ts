import { timeVal } from "./grammar.ts";
import type { Entry } from "./tree.ts";

/** Facts that MLST offers, in the order of FEAT; those that a session starts with are the default (RFC 3659 §7.8). */
export const FACTS = ["type", "perm", "size", "modify", "unique"] as const;

/** Facts of the trees; offered, and on. */
export const TREE_FACTS = ["x.state", "x.reason", "x.sent", "x.total", "x.digest"] as const;

/** `fact=value;… name` (RFC 3659 §7.2). @param chosen by OPTS MLST, lower case */
export function mlsx(entry: Entry, chosen: ReadonlySet<string>, name: string = entry.name): string {
  const facts: (readonly [string, string])[] = [
    ["type", entry.kind === "folder" ? "dir" : "file"],
    ["perm", entry.perm],
    ...(entry.size === undefined ? [] : ([["size", String(entry.size)]] as const)),
    ...(entry.modified === undefined ? [] : ([["modify", timeVal(entry.modified)]] as const)),
    ...(entry.unique === undefined ? [] : ([["unique", entry.unique]] as const)),
    ...(entry.facts ?? []),
  ];
  const shown = facts.filter(([fact]) => chosen.has(fact)).map(([fact, value]) => `${fact}=${value};`);
  return `${shown.join("")} ${name}`;
}

/** As `ls -l` writes it, which is what programs parse. */
export function longLine(entry: Entry, now: Date): string {
  const mode = entry.kind === "folder" ? "drwx------" : "-rw-------";
  const links = entry.kind === "folder" ? "2" : "1";
  const size = String(entry.size ?? 0).padStart(12);
  return `${mode} ${links} owner group ${size} ${lsDate(entry.modified ?? now, now)} ${entry.name}`;
}

/** Minutes of the last half year, years of what is older, or ahead. */
function lsDate(date: Date, now: Date): string {
  const month = MONTHS[date.getUTCMonth()] ?? "Jan";
  const day = String(date.getUTCDate()).padStart(2);
  const age = now.getTime() - date.getTime();
  const recent = age < HALF_YEAR_MS && age > -DAY_MS;
  const clock = date.toISOString().slice(11, 16);
  return `${month} ${day} ${recent ? clock : String(date.getUTCFullYear()).padStart(5)}`;
}

const MONTHS = ["Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec"];
const DAY_MS = 86_400_000;
const HALF_YEAR_MS = 182 * DAY_MS;

/** Lines of a listing as they go on a data connection, some at a time: a long one is never one string. */
export function* listingBytes(lines: Iterable<string>): Generator<Buffer> {
  let block = "";
  for (const line of lines) {
    block += `${line}\r\n`;
    if (block.length >= BLOCK) {
      yield Buffer.from(block);
      block = "";
    }
  }
  if (block !== "") yield Buffer.from(block);
}

const BLOCK = 16_384;
