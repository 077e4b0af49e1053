import { createServer, type RequestListener } from "node:http";
import { expect, test } from "vitest";
import { type DownloadLimits, download } from "../../src/peertls-core/download.ts";

const limits: DownloadLimits = { maxBytes: 1_000, seconds: 5, redirects: 3, privateTargets: true };

async function serving<T>(listener: RequestListener, use: (base: string) => Promise<T>): Promise<T> {
  const server = createServer(listener);
  await new Promise<void>((resolve) => server.listen(0, "127.0.0.1", resolve));
  const { port } = server.address() as { port: number };
  try {
    return await use(`http://127.0.0.1:${port}`);
  } finally {
    server.closeAllConnections();
    await new Promise((resolve) => server.close(resolve));
  }
}

const fetch = (url: string, change: Partial<DownloadLimits> = {}) =>
  download(url, { ...limits, ...change }, new AbortController().signal);

test("what is there comes whole, also over three redirects", async () => {
  await serving(
    (request, response) => {
      const hop = Number(request.url?.slice(1));
      if (hop > 0) response.writeHead(302, { location: `/${hop - 1}` }).end();
      else response.end("the list");
    },
    async (base) => {
      expect((await fetch(`${base}/0`)).toString()).toBe("the list");
      expect((await fetch(`${base}/3`)).toString()).toBe("the list");
      await expect(fetch(`${base}/4`)).rejects.toMatchObject({ code: "unreachable", temporary: true });
    },
  );
});

test("too much is given up on the way, and not swallowed", async () => {
  let written = 0;
  await serving(
    (_request, response) => {
      const piece = Buffer.alloc(65_536);
      const more = () => {
        while (written < 100_000_000 && response.write(piece)) written += piece.length;
      };
      response.on("drain", more);
      response.on("error", () => undefined);
      more();
    },
    async (base) => {
      await expect(fetch(base, { maxBytes: 200_000 })).rejects.toMatchObject({ code: "limit-exceeded" });
    },
  );
  expect(written).toBeLessThan(50_000_000);
});

test.each([
  ["a redirect", { "/": 302, "/there": 200 }],
  ["an error", { "/": 404 }],
])("what comes with %s is not waited for", async (_name, statuses: Record<string, number>) => {
  const { promise: gone, resolve: ended } = Promise.withResolvers<void>();
  await serving(
    (request, response) => {
      const status = statuses[request.url ?? ""] ?? 500;
      response.writeHead(status, { location: "/there" }).write("beginning");
      if (status === 200) response.end();
      else response.once("close", () => ended());
    },
    async (base) => {
      await fetch(base).catch(() => undefined);
      await gone;
    },
  );
});

test("an answer that is cut off is none", async () => {
  await serving(
    (_request, response) => {
      response.writeHead(200, { "content-length": "100" });
      response.write("half");
      setImmediate(() => response.destroy());
    },
    async (base) => {
      await expect(fetch(base)).rejects.toMatchObject({ code: "unreachable" });
    },
  );
});

test("a server that says nothing is given up in time", async () => {
  await serving(
    () => undefined,
    async (base) => {
      await expect(fetch(base, { seconds: 0.2 })).rejects.toMatchObject({ code: "unreachable" });
    },
  );
});

test("a status that is no success is a failure", async () => {
  await serving(
    (_request, response) => response.writeHead(404).end("not here"),
    async (base) => {
      await expect(fetch(base)).rejects.toMatchObject({ code: "unreachable", details: { status: 404 } });
    },
  );
});

test("private addresses are not asked, by number, by name or behind a redirect, unless that is configured", async () => {
  let asked = 0;
  await serving(
    (_request, response) => {
      asked += 1;
      response.end("secret");
    },
    async (base) => {
      const port = new URL(base).port;
      for (const host of ["127.0.0.1", "[::1]", "localhost", "10.0.0.1", "[::ffff:127.0.0.1]", "0x7f000001"]) {
        await expect(fetch(`http://${host}:${port}/`, { privateTargets: false }), host).rejects.toMatchObject({
          code: "forbidden",
        });
      }
    },
  );
  expect(asked).toBe(0);
});

test.each(["ftp://example.org/a.crl", "file:///etc/passwd", "ldap://example.org/", "no url"])(
  "%s is not fetched",
  async (url) => {
    await expect(fetch(url)).rejects.toMatchObject({ code: "unsupported" });
  },
);

test("a body is posted with its type", async () => {
  await serving(
    (request, response) => {
      const parts: Buffer[] = [];
      request.on("data", (part: Buffer) => parts.push(part));
      request.on("end", () =>
        response.end(`${request.method} ${request.headers["content-type"]} ${Buffer.concat(parts)}`),
      );
    },
    async (base) => {
      const body = { type: "application/ocsp-request", bytes: Buffer.from("question") };
      const answer = await download(base, limits, new AbortController().signal, body);
      expect(answer.toString()).toBe("POST application/ocsp-request question");
    },
  );
});

test("a server that would rather speak another protocol is given up, and is not waited for without end", async () => {
  await serving(
    (_request, response) => void response.writeHead(101, { connection: "upgrade", upgrade: "other" }).end(),
    async (base) => {
      await expect(fetch(base)).rejects.toMatchObject({ code: "unreachable", temporary: true });
    },
  );
});
