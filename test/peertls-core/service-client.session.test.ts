import { expect, test } from "vitest";
import { httpsClient, listenService, upgradeServiceServer } from "../../src/peertls-core/service.ts";
import { silentLog } from "../../src/pki/log.ts";
import { makeTestDomain } from "../support/pki.ts";

const alpha = makeTestDomain({ domain: "alpha.test" });
const clock = () => new Date();

/** What a client makes of a service that answers so. */
async function answered(text: string, close: boolean) {
  const tls = { credentials: alpha.domainServer(), clientAnchors: () => [alpha.anchor], clock, log: silentLog };
  const listener = await listenService({ host: "::1", port: 0 }, (raw) => {
    void upgradeServiceServer(raw, tls).then(({ stream }) => {
      stream.on("error", () => undefined);
      stream.once("data", () => (close ? stream.end(text) : stream.write(text)));
    });
  });
  const { address } = listener;
  const client = httpsClient({
    address: () => address,
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
