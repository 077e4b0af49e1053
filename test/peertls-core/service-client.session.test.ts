import { describe, expect, test } from "vitest";
import type { PeerAddress } from "../../src/peertls-core/connection.ts";
import type { Credentials } from "../../src/peertls-core/credentials.ts";
import { httpsClient } from "../../src/peertls-core/https-client.ts";
import { listenService, type ServiceSocket, upgradeServiceServer } from "../../src/peertls-core/service.ts";
import { silentLog } from "../../src/pki/log.ts";
import type { SuiteError } from "../../src/pki/suite-error.ts";
import { makeTestDomain } from "../support/pki.ts";

const alpha = makeTestDomain({ domain: "alpha.test" });
const clock = () => new Date();
const tls = { credentials: alpha.domainServer(), clientAnchors: () => [alpha.anchor], clock, log: silentLog };

/** What a client makes of a service that answers so. */
async function answered(text: string, close: boolean) {
  const listener = await listenService({ host: "::1", port: 0 }, (raw) => {
    void upgradeServiceServer(raw, tls).then(({ stream }) => {
      stream.on("error", () => undefined);
      stream.once("data", () => (close ? stream.end(text) : stream.write(text)));
    });
  });
  const { address } = listener;
  const client = httpsClient({
    addresses: () => [address],
    serverName: "alpha.test",
    anchors: () => [alpha.anchor],
    clock,
  });
  try {
    return await client.request({ method: "GET", path: "/" }, AbortSignal.timeout(5_000));
  } finally {
    client.close();
    await listener.close();
  }
}

test("an answer comes whole", async () => {
  const answer = await answered("HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nhi", false);
  expect(answer).toMatchObject({ status: 200, body: Buffer.from("hi") });
});

test.each([
  [
    "would rather speak another protocol",
    "HTTP/1.1 101 Switching Protocols\r\nConnection: upgrade\r\nUpgrade: x\r\n\r\n",
  ],
  ["ends in the middle", "HTTP/1.1 200 OK\r\nContent-Length: 20\r\n\r\nhi"],
  ["says nothing", ""],
])("a service that %s is given up, and is not waited for without end", async (_name, text) => {
  await expect(answered(text, true)).rejects.toMatchObject({ code: "unreachable", temporary: true });
});

describe("an answer that goes on", () => {
  const HEAD = "HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n";
  const chunk = (text: string) => `${text.length.toString(16)}\r\n${text}\r\n`;

  /** A service that does this when asked, and a client of it. */
  async function telling(tell: (stream: ServiceSocket) => void) {
    const listener = await listenService({ host: "::1", port: 0 }, (raw) => {
      void upgradeServiceServer(raw, tls).then(({ stream }) => {
        stream.on("error", () => undefined);
        stream.once("data", () => tell(stream));
      });
    });
    const client = httpsClient({
      addresses: () => [listener.address],
      serverName: "alpha.test",
      anchors: () => [alpha.anchor],
      clock,
    });
    return {
      read: (silentMs: number, signal = AbortSignal.timeout(5_000)) =>
        client.stream({ method: "POST", path: "/v1/watch", body: "{}" }, silentMs, signal),
      [Symbol.asyncDispose]: async () => {
        client.close();
        await listener.close();
      },
    };
  }
  const told = async (pieces: AsyncIterable<Buffer>) => {
    let text = "";
    try {
      for await (const piece of pieces) text += piece.toString();
      return [text, "end"];
    } catch (error) {
      return [text, (error as SuiteError).code];
    }
  };

  test("comes piece by piece, to its end", async () => {
    await using service = await telling((stream) => stream.write(HEAD + chunk("one ")));
    const pieces = service.read(5_000);
    expect((await pieces.next()).value?.toString()).toBe("one ");
    await pieces.return();
    await using whole = await telling((stream) => stream.write(`${HEAD}${chunk("one ")}${chunk("two")}0\r\n\r\n`));
    expect(await told(whole.read(5_000))).toEqual(["one two", "end"]);
  });

  test("that breaks off, falls silent, is refused or is given up says so", async () => {
    await using broken = await telling((stream) => stream.end(HEAD + chunk("one")));
    expect(await told(broken.read(5_000))).toEqual(["one", "unreachable"]);
    await using silent = await telling((stream) => stream.write(HEAD + chunk("one")));
    expect(await told(silent.read(50))).toEqual(["one", "unreachable"]);
    expect(await told(silent.read(5_000, AbortSignal.timeout(50)))).toEqual(["one", "cancelled"]);
    await using refusing = await telling((stream) => stream.end("HTTP/1.1 403 Forbidden\r\nContent-Length: 0\r\n\r\n"));
    expect(await told(refusing.read(5_000))).toEqual(["", "unsupported"]);
  });
});

test("of several servers the first that lives and proves who it is answers", async () => {
  const answering = (credentials: Credentials, text: string) =>
    listenService({ host: "::1", port: 0 }, (raw) => {
      upgradeServiceServer(raw, { ...tls, credentials }).then(
        ({ stream }) => {
          stream.on("error", () => undefined);
          stream.once("data", () => stream.end(`HTTP/1.1 200 OK\r\nContent-Length: ${text.length}\r\n\r\n${text}`));
        },
        () => undefined,
      );
    });
  const dead = await listenService({ host: "::1", port: 0 }, () => undefined);
  await dead.close();
  const impostor = await answering(makeTestDomain({ domain: "alpha.test" }).domainServer(), "impostor");
  const [first, second] = [await answering(tls.credentials, "first"), await answering(tls.credentials, "second")];
  const from = async (...listeners: { address: PeerAddress }[]) => {
    const client = httpsClient({
      addresses: async () => listeners.map(({ address }) => address),
      serverName: "alpha.test",
      anchors: () => [alpha.anchor],
      clock,
    });
    try {
      return (await client.request({ method: "GET", path: "/" }, AbortSignal.timeout(5_000))).body.toString();
    } catch (error) {
      return (error as SuiteError).code;
    } finally {
      client.close();
    }
  };
  expect(await from(first, second)).toBe("first");
  expect(await from(dead, impostor, second, first)).toBe("second");
  expect(await from(dead, impostor)).toBe("certificate-invalid");
  expect(await from()).toBe("unreachable");
  for (const listener of [impostor, first, second]) await listener.close();
});
