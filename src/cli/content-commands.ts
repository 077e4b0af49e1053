import { once } from "node:events";
import { basename, resolve } from "node:path";
import { text as textOf } from "node:stream/consumers";
import { progress } from "@clack/prompts";
import { Command } from "commander";
import { SuiteError } from "../pki/suite-error.ts";
import { asking, list, print, type Status, told, withJson } from "./asking.ts";
import { ask } from "./client.ts";
import { homeOf } from "./home.ts";
import { visibleLine } from "./terminal.ts";

const ASK_MS = 30_000;

interface Sent {
  item: string;
  receipts: { to: string; status: Status }[];
}

const sent = ({ item, receipts }: Sent) =>
  receipts.length === 1
    ? `${item} ${told(receipts[0]?.status)}`
    : [item, ...receipts.map(({ to, status }) => `  ${to} ${told(status)}`)].join("\n");

/** Sending and reading. */
export function contentCommands(): Command[] {
  return [
    asking({
      name: "send",
      arguments: [
        ["<to>", "user@domain"],
        ["<text>", "the message"],
      ],
      about: "send a message",
      example: "send bob@beta.test 'Hello Bob'",
      method: "send",
      params: ([to, text]) => ({ to, text }),
      show: sent,
    }),
    mailCommand(),
    fileCommand(),
    asking({
      name: "inbox",
      about: "what has come, newest first",
      example: "inbox",
      method: "inbox",
      show: list(
        (one: { id: string; kind: string; at: string; from: string; title: string; seen: boolean }) =>
          `${one.id}  ${one.seen ? " " : "*"} ${one.kind.padEnd(7)}  ${one.at}  ${one.from}  ${one.title}`,
        "nothing yet",
      ),
    }),
    readCommand(),
  ];
}

function mailCommand(): Command {
  const command = new Command("mail")
    .description("send a mail, sealed to each of its recipients; the text comes from standard input if none is given")
    .argument("<to...>", "user@domain, one or more")
    .requiredOption("--subject <text>", "what it is about")
    .option("--text <text>", "the mail's text");
  return withJson(command, "mail bob@beta.test --subject Lunch --text 'At noon?'").action(
    async (to: string[], o: { subject: string; text?: string }, self: Command) => {
      const text = o.text ?? (await textOf(process.stdin));
      const signal = AbortSignal.timeout(ASK_MS);
      print(self, await ask(homeOf(self).control, "mail", { to, subject: o.subject, text }, signal), sent);
    },
  );
}

type Progress = { totalBytes: number; sentBytes: number };

function fileCommand(): Command {
  const command = new Command("file")
    .description("send a file, sealed to its recipient; ends when it has arrived or has to wait")
    .argument("<to>", "user@domain")
    .argument("<path>", "the file");
  return withJson(command, "file bob@beta.test holiday.mp4").action(
    async (to: string, path: string, _o: object, self: Command) => {
      const stop = new AbortController();
      process.once("SIGINT", () => stop.abort());
      const bar = progressBar(basename(path));
      try {
        const params = { to, path: resolve(path) };
        const result = await ask<Sent>(homeOf(self).control, "file", params, stop.signal, bar.show);
        bar.end(told(result.receipts[0]?.status));
        print(self, result, sent);
      } catch (error) {
        bar.end("not sent");
        if (stop.signal.aborted) {
          throw new SuiteError("cancelled", "no longer watched; what was accepted goes on by itself", {
            fault: "local",
            details: { see: "sixtalk queue" },
          });
        }
        throw error;
      }
    },
  );
}

/** A bar for people at a terminal; for all else nothing. */
function progressBar(name: string): { show(event: Progress): void; end(message: string): void } {
  if (!process.stdout.isTTY) return { show: () => undefined, end: () => undefined };
  let bar: ReturnType<typeof progress> | undefined;
  let shown = 0;
  return {
    show({ sentBytes, totalBytes }) {
      if (bar === undefined) {
        bar = progress({ max: Math.max(totalBytes, 1) });
        bar.start(name);
      }
      if (sentBytes > shown)
        bar.advance(sentBytes - shown, `${name}  ${megabytes(sentBytes)} of ${megabytes(totalBytes)}`);
      shown = Math.max(shown, sentBytes);
    },
    end(message) {
      bar?.stop(`${name}  ${message}`);
    },
  };
}

function megabytes(bytes: number): string {
  return `${(bytes / 1e6).toFixed(1)} MB`;
}

interface ReadResult {
  kind: string;
  from: string;
  to?: string;
  subject?: string;
  at: string;
  protection: string;
  text?: string;
  fileName?: string;
  size: number;
}

function readCommand(): Command {
  const command = new Command("read")
    .description("show one item; --raw and --sealed write bytes, as for a file: sixtalk read 01M88 --raw > holiday.mp4")
    .argument("<id>", "the item, or the beginning of its id")
    .option("--raw", "the opened bytes as they are stored")
    .option("--sealed", "the sealed original, as it came");
  return withJson(command, "read 01M88").action(
    async (id: string, o: { raw?: boolean; sealed?: boolean }, self: Command) => {
      const { control } = homeOf(self);
      if (o.raw === true || o.sealed === true) {
        const form = o.sealed === true ? "sealed" : "raw";
        if (process.stdout.isTTY) {
          throw new SuiteError("forbidden", "bytes that somebody else chose are not written to a terminal", {
            fault: "local",
            details: { instead: `sixtalk read ${id} --${form} | less` },
          });
        }
        await ask(
          control,
          "read.bytes",
          { id, form },
          new AbortController().signal,
          async ({ data }: { data: string }) => {
            if (!process.stdout.write(Buffer.from(data, "base64"))) await once(process.stdout, "drain");
          },
        );
        return;
      }
      print(self, await ask(control, "read", { id }, AbortSignal.timeout(ASK_MS)), shown);
    },
  );
}

function shown(item: ReadResult): string {
  const lines = [
    `From: ${item.from}`,
    ...(item.to === undefined ? [] : [`To: ${item.to}`]),
    `Date: ${item.at}`,
    ...(item.subject === undefined ? [] : [`Subject: ${item.subject}`]),
    `Seal: ${item.protection}`,
  ];
  if (item.kind === "file") lines.push(`File: ${item.fileName} (${item.size} bytes; --raw writes it)`);
  const head = lines.map(visibleLine).join("\n");
  return item.text === undefined ? head : `${head}\n\n${item.text}`;
}
