import { spawnSync } from "node:child_process";
import { chmodSync, chownSync, existsSync, mkdtempSync, readdirSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";

export interface TestPostgres extends AsyncDisposable {
  /** A new empty database. @returns its connection string */
  database(): string;
  /** As the power would; and again. */
  crash(): void;
  start(): void;
}

/** Debian's PostgreSQL with a cluster of its own, reached by a socket in a temporary folder. It does not run as root. */
export function startPostgres(): TestPostgres {
  const bin = binaries();
  const folder = mkdtempSync(join(tmpdir(), "pg-")); // a socket's path has less than 108 bytes
  const root = process.getuid?.() === 0;
  const user = root ? "postgres" : (process.env["USER"] ?? "");
  if (root) {
    const id = (flag: string) => Number(run("id", [flag, user]));
    chownSync(folder, id("-u"), id("-g"));
    chmodSync(folder, 0o700);
  }
  const as = (program: string, ...values: string[]) =>
    root
      ? run("runuser", ["-u", user, "--", join(bin, program), ...values], folder)
      : run(join(bin, program), values, folder);
  const data = join(folder, "db");
  as("initdb", "-D", data, "-A", "trust", "-E", "UTF8", "--locale=C.UTF-8", "-N", "-U", "postgres");
  const control = (...values: string[]) => as("pg_ctl", "-D", data, "-w", "-l", join(folder, "log"), ...values);
  const start = () => void control("-o", `-k ${folder} -h '' -c max_connections=60`, "start");
  start();
  let databases = 0;
  return {
    database() {
      databases += 1;
      as("psql", "-q", "-h", folder, "-U", "postgres", "-c", `create database t${databases} strategy file_copy`);
      return `postgres://postgres@/t${databases}?host=${encodeURIComponent(folder)}`;
    },
    crash: () => void control("-m", "immediate", "stop"),
    start,
    [Symbol.asyncDispose]: async () => {
      control("-m", "immediate", "stop");
      rmSync(folder, { recursive: true, force: true });
    },
  };
}

function binaries(): string {
  const debian = "/usr/lib/postgresql";
  const versions = existsSync(debian) ? readdirSync(debian) : [];
  const found = versions.map((version) => join(debian, version, "bin")).find((bin) => existsSync(join(bin, "initdb")));
  if (found === undefined) throw new Error("PostgreSQL is missing: run interop/setup.sh");
  return found;
}

function run(program: string, values: readonly string[], cwd = "/"): string {
  const { status, stdout, stderr, error } = spawnSync(program, values, {
    cwd,
    encoding: "utf8",
    stdio: ["ignore", "pipe", "pipe"],
  });
  if (status !== 0) throw new Error(`${program} ${values.join(" ")}: ${error?.message ?? stderr}`);
  return stdout;
}
