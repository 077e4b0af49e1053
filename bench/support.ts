import { type ChildProcess, spawn } from "node:child_process";
import { readFileSync } from "node:fs";
import { loadavg } from "node:os";

/** One figure of one round. */
export interface Sample {
  /** Units of work done, e.g. handshakes or megabytes. */
  units: number;
  cpuSeconds: number;
}

export interface Row {
  area: string;
  case: string;
  unit: string;
  /** Medians. */
  ours: number;
  rival: number;
  ratio: number;
  rounds: number;
  spread: [number, number];
  load: number;
  versions: string;
  target: number;
  ok: boolean;
}

/** Runs A B A B …, and compares the medians of units per CPU-second. The first round warms up and is not counted. */
export async function compare(o: {
  area: string;
  case: string;
  unit: string;
  /** What the work is divided by, "server CPU-second" if absent. */
  per?: string;
  rounds: number;
  target: number;
  versions: string;
  ours: () => Promise<Sample>;
  rival: () => Promise<Sample>;
}): Promise<Row> {
  const load = loadavg()[0] ?? 0;
  const rates = { ours: [] as number[], rival: [] as number[] };
  for (let round = 0; round <= o.rounds; round += 1) {
    for (const who of ["ours", "rival"] as const) {
      const { units, cpuSeconds } = await o[who]();
      if (round > 0) rates[who].push(units / cpuSeconds);
    }
  }
  const ours = median(rates.ours);
  const rival = median(rates.rival);
  const ratios = rates.ours.map((rate, at) => rate / (rates.rival[at] ?? Number.NaN));
  const row: Row = {
    area: o.area,
    case: o.case,
    unit: `${o.unit} per ${o.per ?? "server CPU-second"}`,
    ours: rounded(ours),
    rival: rounded(rival),
    ratio: rounded(ours / rival),
    rounds: o.rounds,
    spread: [rounded(Math.min(...ratios)), rounded(Math.max(...ratios))],
    load: rounded(load),
    versions: o.versions,
    target: o.target,
    ok: ours / rival >= o.target,
  };
  print(row);
  return row;
}

/** A figure of ours with a ceiling, and the rival's beside it for orientation. */
export function ceiling(o: { area: string; case: string; unit: string; ours: number; rival?: number; target: number }) {
  const row = { ...o, ours: rounded(o.ours), ok: o.ours <= o.target };
  process.stdout.write(`${JSON.stringify(row)}\n`);
  return row;
}

function print(row: Row): void {
  process.stdout.write(`${JSON.stringify(row)}\n`);
}

export function median(values: readonly number[]): number {
  const sorted = values.toSorted((a, b) => a - b);
  const middle = sorted.length >> 1;
  return sorted.length % 2 === 1
    ? (sorted[middle] ?? Number.NaN)
    : ((sorted[middle - 1] ?? Number.NaN) + (sorted[middle] ?? Number.NaN)) / 2;
}

function rounded(value: number): number {
  return Number(value.toPrecision(4));
}

/** User and system time of a process, in seconds. */
export function cpuSeconds(pid: number): number {
  const fields = readFileSync(`/proc/${pid}/stat`, "utf8").split(") ")[1]?.split(" ") ?? [];
  return (Number(fields[11]) + Number(fields[12])) / 100;
}

/** Resident memory in kB. */
export function residentKilobytes(pid: number): number {
  return Number(/VmRSS:\s+(\d+)/.exec(readFileSync(`/proc/${pid}/status`, "utf8"))?.[1]);
}

/** A process bound to one core: 1 for servers, 0 for load. Its first line of output, if wanted, comes with it. */
export async function pinned(
  core: 0 | 1,
  command: string,
  args: readonly string[],
  o: { ready?: boolean } = {},
): Promise<{ child: ChildProcess; pid: number; line: string }> {
  const child = spawn("taskset", ["-c", String(core), command, ...args], { stdio: ["pipe", "pipe", "ignore"] });
  const line =
    o.ready === true
      ? await new Promise<string>((resolve, reject) => {
          child.stdout.once("data", (chunk: Buffer) => resolve(chunk.toString().trim()));
          child.once("exit", () => reject(new Error(`${command} ended before it was ready`)));
        })
      : "";
  return { child, pid: child.pid as number, line }; // taskset replaces itself
}

export async function ended(child: ChildProcess): Promise<void> {
  if (child.exitCode !== null || child.signalCode !== null) return;
  await new Promise<void>((resolve) => {
    child.once("exit", () => resolve());
    child.kill("SIGTERM");
  });
}
