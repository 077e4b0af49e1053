import { existsSync, mkdirSync } from "node:fs";
import { join } from "node:path";
import { afterEach, expect, test, vi } from "vitest";
import { type CoreOptions, openCore } from "../../src/node/core.ts";
import { homeAt, makeHome } from "../../src/node/home.ts";
import { trustSchema } from "../../src/peertls-core/policy-schema.ts";
import { Revocations } from "../../src/peertls-core/revocation.ts";
import { silentLog } from "../../src/pki/log.ts";
import { makeTestDomain } from "../support/pki.ts";
import { temporaryFolder } from "../support/tmp.ts";

const alpha = makeTestDomain({ domain: "alpha.test" });
const alice = alpha.person({ identity: "alice@alpha.test" });
const closed = vi.spyOn(Revocations.prototype, "close");

afterEach(() => closed.mockClear());

async function start(folder: string, auth = alice.auth) {
  const home = homeAt(join(folder, "alice"), {});
  makeHome(home);
  const options: CoreOptions = {
    home,
    trust: trustSchema.parse({}),
    keys: { auth: { ...auth, renewAfter: new Date() }, encryption: [], uuid: "u" },
    clock: () => new Date(),
    log: silentLog,
    onDenied: () => undefined,
    dialRanges: [],
  };
  return { home, history: join(home.directory, "history.db"), open: () => openCore(options) };
}

/** SQLite takes these files away when the last connection is closed. */
const isOpen = (database: string) => existsSync(`${database}-wal`);

test("a core that is closed has closed its history and its lists", async () => {
  await using folder = await temporaryFolder();
  const { history, open } = await start(folder.path);
  const core = await open();
  expect([isOpen(history), closed.mock.calls.length]).toEqual([true, 0]);
  await core.close();
  expect([isOpen(history), closed.mock.calls.length]).toEqual([false, 1]);
});

test("a key that is not the certificate's opens no gate, and leaves nothing open", async () => {
  await using folder = await temporaryFolder();
  const { privateKey } = alpha.person({ identity: "bob@alpha.test" }).auth;
  const { history, open } = await start(folder.path, { ...alice.auth, privateKey });
  await expect(open()).rejects.toThrow(/key values mismatch/);
  expect(existsSync(history)).toBe(true);
  expect([isOpen(history), closed.mock.calls.length]).toEqual([false, 1]);
});

test("a history that cannot be opened leaves no lists open", async () => {
  await using folder = await temporaryFolder();
  const { history, open } = await start(folder.path);
  mkdirSync(history);
  await expect(open()).rejects.toThrow(/unable to open/);
  expect(closed).toHaveBeenCalledOnce();
});
