import { readFileSync } from "node:fs";
import { join } from "node:path";
import { SuiteError } from "../pki/suite-error.ts";
import { openSqliteStore } from "../sixid/store/sqlite.ts";
import type { DirectoryStore } from "../sixid/store/store.ts";
import type { DomainConfig } from "./config.ts";
import type { Home } from "./home.ts";

/**
 * What a domain's directory keeps: in a file of the home directory, or in a PostgreSQL that several servers share.
 * @throws SuiteError config-invalid, store-failed
 */
export async function openStore(
  config: Pick<DomainConfig, "store">,
  home: Pick<Home, "domain">,
): Promise<DirectoryStore> {
  const { store } = config;
  if (store === undefined) return openSqliteStore(join(home.domain, "directory.db"));
  const { openPostgresStore } = await import("../sixid/store/postgres.ts"); // for the few who need it
  return openPostgresStore(connectionString(store.postgres.slice("file:".length)));
}

/** It may hold a password, so it is in a file of its own, and no error shows it. */
function connectionString(file: string): string {
  let text: string;
  try {
    text = readFileSync(file, "utf8").trim();
  } catch (cause) {
    throw invalid("the file with the database's connection string cannot be read", file, cause);
  }
  if (!/^postgres(ql)?:\/\/\S+$/.test(text))
    throw invalid("the file holds no connection string, as postgres://user@host/database", file);
  return text;
}

function invalid(message: string, file: string, cause?: unknown): SuiteError {
  return new SuiteError("config-invalid", message, {
    fault: "local",
    details: { problems: `${file}: ${message}` },
    ...(cause === undefined ? {} : { cause }),
  });
}
