// The load of bench/peertls, the same for both sides: PORT MODE COUNT FOLDER. `full` and `resumed` make COUNT handshakes, eight at a
// time; `keep` opens COUNT connections and holds them until it is ended; `bulk` reads COUNT megabytes. Prints what it did.
import { readFileSync } from "node:fs";
import { join } from "node:path";
import { type ConnectionOptions, connect, createSecureContext, type SecureContext, type TLSSocket } from "node:tls";

const [port = "0", mode = "full", count = "1", folder = "", request = ""] = process.argv.slice(2);
const read = (name: string) => readFileSync(join(folder, name));
const leaves = JSON.parse(read("leaves.json").toString()) as { key: string; cert: string }[];
const contexts: SecureContext[] = leaves.map(({ key, cert }) =>
  createSecureContext({ key, cert, minVersion: "TLSv1.3", ecdhCurve: "X25519", ciphers: "TLS_AES_128_GCM_SHA256" }),
);

function open(n: number, session?: Buffer): Promise<{ socket: TLSSocket; session: Buffer | undefined }> {
  return new Promise((resolve, reject) => {
    const options: ConnectionOptions = {
      host: "127.0.0.1",
      port: Number(port),
      secureContext: contexts[n % contexts.length] as SecureContext,
      rejectUnauthorized: false,
      ...(session === undefined ? {} : { session }),
    };
    const socket = connect(options);
    let ticket: Buffer | undefined;
    socket.on("session", (one: Buffer) => {
      ticket = one;
    });
    socket.once("error", reject);
    socket.once("secureConnect", () => {
      if (session !== undefined && !socket.isSessionReused()) reject(new Error("not resumed"));
      if (request !== "") socket.write(request.replaceAll("\\r\\n", "\r\n"));
    });
    socket.once("data", () => resolve({ socket, session: ticket }));
  });
}

async function handshakes(total: number, session?: Buffer): Promise<void> {
  let next = 0;
  const worker = async () => {
    for (let n = next++; n < total; n = next++) {
      const { socket } = await open(session === undefined ? n : 0, session);
      socket.destroy();
    }
  };
  await Promise.all(Array.from({ length: 8 }, worker));
}

const total = Number(count);
if (mode === "full") {
  await handshakes(total);
  process.stdout.write(`${total}\n`);
} else if (mode === "resumed") {
  const { socket, session } = await open(0);
  socket.destroy();
  if (session === undefined) throw new Error("no ticket came");
  await handshakes(total, session);
  process.stdout.write(`${total}\n`);
} else if (mode === "keep") {
  const kept: TLSSocket[] = [];
  for (let n = 0; n < total; n += 20) {
    const opened = await Promise.all(Array.from({ length: Math.min(20, total - n) }, (_one, at) => open(n + at)));
    kept.push(...opened.map(({ socket }) => socket));
  }
  process.stdout.write(`${kept.length}\n`);
  process.stdin.resume();
} else {
  const { socket } = await open(0);
  let bytes = 0;
  const wanted = total * 1_000_000;
  await new Promise<void>((resolve) => {
    socket.on("data", (chunk: Buffer) => {
      bytes += chunk.length;
      if (bytes < wanted) return;
      socket.destroy();
      resolve();
    });
    socket.on("close", () => resolve());
  });
  process.stdout.write(`${bytes / 1_000_000}\n`);
}
