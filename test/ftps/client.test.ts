import { readFileSync } from "node:fs";
import { createRequire } from "node:module";
import { Duplex } from "node:stream";
import { Client, FTPContext, FTPError } from "basic-ftp";
import { expect, test } from "vitest";

const require = createRequire(import.meta.url);

test("basic-ftp is the release whose inside the client stands on", () => {
  const { version } = JSON.parse(readFileSync(require.resolve("basic-ftp/package.json"), "utf8")) as {
    version: string;
  };
  expect(version).toBe("6.2.6");
});

test("the members of basic-ftp that the client uses and replaces are there", () => {
  const client = new Client(0);
  expect(client.ftp).toBeInstanceOf(FTPContext);
  expect(Object.hasOwn(client, "prepareTransfer")).toBe(true);
  for (const member of ["login", "send", "uploadFrom", "close"] as const)
    expect(typeof client[member]).toBe("function");
  for (const member of ["handle", "request"] as const) expect(typeof client.ftp[member]).toBe("function");
  for (const member of ["socket", "dataSocket"]) {
    const property = Object.getOwnPropertyDescriptor(FTPContext.prototype, member);
    expect([typeof property?.get, typeof property?.set]).toEqual(["function", "function"]);
  }
  expect(new FTPError({ code: 550, message: "550 no" }).code).toBe(550);
});

test("an upload uses the data socket that prepareTransfer put there, and opens none", async () => {
  const said: string[] = [];
  const stored: Buffer[] = [];
  const control = face((line) => {
    said.push(line.trim());
    if (line.startsWith("STOR")) setImmediate(() => control.push("150 go\r\n"));
  });
  const data = face(
    (_line, chunk) => void stored.push(chunk),
    () => setImmediate(() => control.push("226 Opened\r\n")),
  );
  const client = new Client(0);
  client.ftp.socket = control as never;
  client.prepareTransfer = (context) => {
    context.dataSocket = data as never;
    return Promise.resolve({ code: 229, message: "229" });
  };
  const sources = [Buffer.from("the "), Buffer.from("bytes")];
  const { message } = await client.uploadFrom(Duplex.from(sources) as never, "/inbox/x.p7m");
  expect(message).toBe("226 Opened");
  expect(said).toEqual(["STOR /inbox/x.p7m"]);
  expect(Buffer.concat(stored).toString()).toBe("the bytes");
  client.close();
});

/** A stream with what basic-ftp asks of a socket. */
function face(onWrite: (text: string, chunk: Buffer) => void, onEnd: () => void = () => undefined): Duplex {
  const stream = new Duplex({
    read() {},
    write(chunk: Buffer, _encoding, done) {
      onWrite(chunk.toString(), chunk);
      done();
    },
    final(done) {
      onEnd();
      done();
    },
  });
  const self = () => stream;
  return Object.assign(stream, {
    setTimeout: self,
    setKeepAlive: self,
    remoteAddress: "::1",
    bytesRead: 0,
    bytesWritten: 0,
  });
}
