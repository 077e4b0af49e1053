import { posix } from "node:path";

/** One source file, path relative to the project's root with forward slashes. */
export interface SourceFile {
  path: string;
  text: string;
}

/** Folders by rank: an import points to a lower rank, or stays in its folder. */
const RANKS: readonly (readonly string[])[] = [
  ["pki"],
  ["peertls-core"],
  ["smime", "sixid", "irp"],
  ["delivery"],
  ["sip", "ftps", "smtp", "imap"],
  ["web", "node"],
  ["cli"],
];

const SOCKET_MODULES = /^node:(net|tls|dgram|http|https|http2)$/;
const MAX_LINES = 450;

/** What the laws of the architecture find wrong, one line each. */
export function violations(files: readonly SourceFile[]): string[] {
  return files.flatMap((file) => [...imports(file), ...words(file), ...shape(file)]);
}

function imports(file: SourceFile): string[] {
  const found: string[] = [];
  const folder = folderOf(file.path);
  for (const target of importsOf(file.text)) {
    if (SOCKET_MODULES.test(target) && folder !== "peertls-core")
      found.push(`${file.path}: only peertls-core opens sockets (${target})`);
    if (!target.startsWith(".")) continue;
    const path = posix.normalize(posix.join(posix.dirname(file.path), target));
    const other = folderOf(path);
    if (!path.startsWith("src/")) found.push(`${file.path}: imports from outside src (${target})`);
    else if (other !== folder && rankOf(other) >= rankOf(folder))
      found.push(`${file.path}: ${folder} may not import ${other}`);
    if (
      path === "src/peertls-core/connection.ts" &&
      /\bGATE_KEY\b/.test(file.text) &&
      file.path !== "src/peertls-core/gate.ts"
    ) {
      found.push(`${file.path}: only the gate makes a PeerConnection`);
    }
  }
  return found;
}

function words(file: SourceFile): string[] {
  const found: string[] = [];
  const code = withoutComments(file.text);
  if (/(?<![.\w#])(fetch|WebSocket|EventSource)\s*\(/.test(code))
    found.push(`${file.path}: sockets come from peertls-core, not from globals`);
  if (/\bnew PeerConnection\(/.test(code) && file.path !== "src/peertls-core/gate.ts")
    found.push(`${file.path}: only the gate makes a PeerConnection`);
  if (/\.(authorized|authorizationError)\b|\.verifyError\(/.test(code))
    found.push(`${file.path}: OpenSSL's verdict is never asked for`);
  if (/^export default\b/m.test(code)) found.push(`${file.path}: no default exports`);
  if (/\b(TODO|FIXME|XXX)\b/.test(file.text)) found.push(`${file.path}: something is unfinished`);
  return found;
}

function shape(file: SourceFile): string[] {
  const lines = file.text.split("\n").length;
  return lines > MAX_LINES ? [`${file.path}: ${lines} lines; is it one thing?`] : [];
}

function importsOf(text: string): string[] {
  return [...withoutComments(text).matchAll(/(?:\bfrom|\bimport)\s*\(?\s*["']([^"']+)["']/g)].map(
    (match) => match[1] ?? "",
  );
}

function withoutComments(text: string): string {
  return text.replace(/\/\*[\s\S]*?\*\//g, "").replace(/^\s*\/\/.*$/gm, "");
}

function folderOf(path: string): string {
  return path.split("/")[1] ?? "";
}

function rankOf(folder: string): number {
  const rank = RANKS.findIndex((folders) => folders.includes(folder));
  return rank < 0 ? Number.POSITIVE_INFINITY : rank;
}
