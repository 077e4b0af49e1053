import { spawn } from "node:child_process";
import { once } from "node:events";
import { Command } from "commander";
import { expect, test } from "vitest";
import { list, print } from "../../src/cli/asking.ts";
import { LAUNCHER } from "../../src/cli/self.ts";
import { visible, visibleJson, visibleLine } from "../../src/cli/terminal.ts";

test.each([
  ["an escape sequence that clears the screen", "\x1b[2Jhello", "�[2Jhello"],
  ["one that renames the window", "\x1b]0;pwned\x07", "�]0;pwned�"],
  ["one of the C1 set", "\x9b31mred", "�31mred"],
  ["a carriage return that writes over the line", "12 MB\rFrom: forged", "12 MB�From: forged"],
  ["DEL and backspaces", "abc\x7f\b\b", "abc���"],
])("%s is shown, not obeyed", (_name, text, shown) => {
  expect(visible(text)).toBe(shown);
});

test("lines and tabs of a text stay, its CRLFs are line ends", () => {
  expect(visible("one\r\n\ttwo\n\u05d0 \u2067x\u2069")).toBe("one\n\ttwo\n\u05d0 \u2067x\u2069");
});

test("a line stays one line that reads in its own order", () => {
  expect(visibleLine("a\r\n01M88  mail  forged\u2028b\u202egnp.exe")).toBe("a 01M88  mail  forged b�gnp.exe");
});

test("JSON has no control characters and reads back as it was", () => {
  const value = { title: "\x1b[2J\x9b1m\x7f\u202e", text: "é\n" };
  const text = visibleJson(value);
  expect(text).not.toMatch(/[\x00-\x1f\x7f-\x9f\u202e]/);
  expect(JSON.parse(text)).toEqual(value);
});

test.each(["--json", "--plain"])("what a command prints (%s) cannot steer the terminal", (how) => {
  const written: string[] = [];
  const { write } = process.stdout;
  process.stdout.write = ((text: string) => written.push(text) > 0) as typeof write;
  try {
    const command = new Command("inbox").option("--json").option("--plain");
    command.parse([how], { from: "user" });
    const titles = list((one: { title: string }) => one.title, "");
    print(command, [{ title: "\x1b[2J\nforged row" }, { title: "\x9b1m" }], titles);
  } finally {
    process.stdout.write = write;
  }
  expect(written.join("")).not.toMatch(/[\x00-\x09\x0b-\x1f\x7f-\x9f]|\nforged/);
});

test("a reader that has had enough is no failure", async () => {
  const child = spawn(process.execPath, [LAUNCHER, "config", "schema"], { stdio: ["ignore", "pipe", "pipe"] });
  child.stdout.destroy();
  let err = "";
  child.stderr.on("data", (chunk: Buffer) => {
    err += chunk.toString();
  });
  const [code] = (await once(child, "close")) as [number | null];
  expect({ code, err }).toEqual({ code: 0, err: "" });
});
