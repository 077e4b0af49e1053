import fc from "fast-check";
import { expect, test } from "vitest";
import { quoted, ROOT, resolvePath, segmentsOf, type VirtualPath } from "../../src/ftps/path.ts";

const folder = resolvePath(ROOT, "/inbox/bob@b.test");

test.each([
  ["", "/inbox/bob@b.test"],
  [".", "/inbox/bob@b.test"],
  ["..", "/inbox"],
  ["../..", "/"],
  ["../../../../..", "/"],
  ["/", "/"],
  ["//", "/"],
  ["/..", "/"],
  ["a//b/./c/../d/", "/inbox/bob@b.test/a/b/d"],
  ["/a/b", "/a/b"],
  ["...", "/inbox/bob@b.test/..."],
  [" a ", "/inbox/bob@b.test/ a "],
  ["e\u0301", "/inbox/bob@b.test/\u00e9"],
  ["a".repeat(255), `/inbox/bob@b.test/${"a".repeat(255)}`],
])("%j is %j", (text, expected) => {
  expect(resolvePath(folder, text)).toBe(expected);
});

test.each([
  ["NUL", "a\0b", "syntax"],
  ["a line end", "a\nb", "syntax"],
  ["DEL", "a\u007fb", "syntax"],
  ["a backslash", "..\\..", "syntax"],
  ["a name of 256 bytes", "\u00e9".repeat(128), "syntax"],
  ["a path of 4097 bytes", `/${"a/".repeat(2_048)}`, "syntax"],
  ["65 folders", "a/".repeat(65), "not-found"],
])("%s is refused", (_what, text, code) => {
  expect(() => resolvePath(ROOT, text)).toThrow(expect.objectContaining({ code }) as Error);
});

test("no path leaves its tree, whatever it is made of", () => {
  const part = fc.oneof(fc.constantFrom("..", ".", "", "a", " ", "...", "~", "%2e%2e"), fc.string({ maxLength: 8 }));
  fc.assert(
    fc.property(fc.array(part, { maxLength: 30 }), fc.boolean(), (parts, absolute) => {
      let path: VirtualPath;
      try {
        path = resolvePath(folder, (absolute ? "/" : "") + parts.join("/"));
      } catch {
        return;
      }
      expect(path.startsWith("/")).toBe(true);
      expect(segmentsOf(path).some((one) => one === "" || one === "." || one === "..")).toBe(false);
      expect(resolvePath(ROOT, path)).toBe(path);
    }),
  );
});

test("a path is quoted with each quote doubled", () => {
  expect(quoted('/a "b"')).toBe('"/a ""b"""');
});
