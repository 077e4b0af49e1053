import { join } from "node:path";
import { fileURLToPath } from "node:url";
import { afterAll, beforeAll, expect, test } from "vitest";
import { type Actor, rootOf, Stage } from "../src/cli/demo-stage.ts";
import { run } from "./pair.ts";

const CLIENT = fileURLToPath(new URL("./irp_client.py", import.meta.url));
let stage: Stage;
let domain: Actor;

beforeAll(async () => {
  stage = await Stage.build();
  [domain] = (await stage.domains(["alpha.test"])) as [Actor];
});
afterAll(() => stage.strike());

test("a client of the standard library alone enrols, renews, fetches and revokes, and is shut out with what it revoked", async () => {
  const code = /[?&]code=([0-9A-Z-]+)/.exec(await stage.command(domain, "domain", "invite", "alice"))?.[1] ?? "";
  const server = ["--host", "::1", "--port", String(domain.ports["irp"]?.port), "--domain", "alpha.test"];
  const who = ["--root", rootOf(domain.home), "--dir", join(stage.folder, "python"), "--user", "alice", "--code", code];
  const { code: status, out, err } = await run("python3", [CLIENT, ...server, ...who, "run"]);
  expect([status, err]).toEqual([0, ""]);
  const steps = out
    .trim()
    .split("\n")
    .map((line) => JSON.parse(line) as { step: string });
  expect(steps).toMatchObject([
    { step: "enrolled", identity: "alice@alpha.test", status: "good" },
    { step: "encryption" },
    { step: "renewed" },
    { step: "fetched", listed: 3 },
    { step: "revoked", state: "revoked", reason: "superseded" },
    { step: "shut out" },
  ]);
  expect(await stage.command(domain, "domain", "audit", "verify")).toContain("hold");
});
