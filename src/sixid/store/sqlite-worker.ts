import { DatabaseSync } from "node:sqlite";
import { type MessagePort, parentPort, receiveMessageOnPort, workerData } from "node:worker_threads";
import { type Call, SqliteRunner } from "./sqlite-run.ts";

export type ToWriter = Call | "end";

export interface WriterData {
  path: string;
  /** For tests that kill the process there: a point, and at which pass. */
  cut?: { point: "written" | "committed"; pass: number };
}

/** Calls that share one commit at most. A batch is what arrived during the commit before: no timer, no waiting. */
const BATCH = 64;

/** The one thread that writes. It ends after any failure that puts durability in doubt. */
function serve(port: MessagePort, { path, cut }: WriterData): void {
  const database = new DatabaseSync(path, { enableForeignKeyConstraints: true, timeout: 5_000 });
  database.exec("pragma synchronous = full"); // with WAL: an fsync at every commit
  const runner = new SqliteRunner(database);
  let passes = 0;
  const passed = (point: "written" | "committed") => {
    if (cut?.point !== point) return;
    passes += 1;
    if (passes === cut.pass) process.kill(process.pid, "SIGKILL");
  };
  port.on("message", (first: ToWriter) => {
    const messages = [first];
    while (messages.length < BATCH) {
      const more = receiveMessageOnPort(port);
      if (more === undefined) break;
      messages.push(more.message as ToWriter);
    }
    const calls = messages.filter((message): message is Call => message !== "end");
    let broken = false;
    if (calls.length > 0) {
      const batch = runner.batch(calls, passed);
      broken = batch.fatal !== undefined;
      port.postMessage(batch);
    }
    if (broken || calls.length < messages.length) end(port, database);
  });
}

function end(port: MessagePort, database: DatabaseSync): void {
  try {
    database.close();
  } finally {
    port.close(); // nothing else keeps the thread alive
  }
}

if (parentPort !== null) serve(parentPort, workerData as WriterData);
