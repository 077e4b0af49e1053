import { join } from "node:path";
import { DatabaseSync } from "node:sqlite";
import { SuiteError } from "../pki/suite-error.ts";
import type { Home } from "./home.ts";

/**
 * One process runs a home: two would spoil it. The lock is the operating system's, on an empty database: it is gone with the
 * process, however that ends.
 * @throws SuiteError conflict when another process has it
 */
export function lockHome(home: Home): Disposable {
  const database = new DatabaseSync(join(home.directory, "running.lock"));
  try {
    database.exec("pragma busy_timeout = 0; pragma journal_mode = delete; begin exclusive");
  } catch (cause) {
    database.close();
    throw new SuiteError("conflict", "this home is running already", {
      fault: "local",
      cause,
      details: { home: home.directory },
    });
  }
  return { [Symbol.dispose]: () => database.close() };
}
