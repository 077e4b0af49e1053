import { randomBytes } from "node:crypto";
import { expect, test } from "vitest";
import { parseIdentity } from "../../src/pki/identity.ts";
import { SuiteError } from "../../src/pki/suite-error.ts";
import { Accounts } from "../../src/sixid/server/accounts.ts";
import { Attempts } from "../../src/sixid/server/attempts.ts";
import { network } from "../../src/sixid/server/network.ts";
import { openSqliteStore } from "../../src/sixid/store/sqlite.ts";
import { VirtualTime } from "../support/virtual-time.ts";

const wrong = () => Promise.reject(new SuiteError("auth-failed", "wrong", { fault: "peer" }));
const codeOf = (promise: Promise<unknown>) =>
  promise.then(
    () => "right",
    (error: SuiteError) => error.code,
  );

test("many guesses at once are as many failures: after the fifth they wait", async () => {
  const time = new VirtualTime();
  const store = openSqliteStore(":memory:");
  const accounts = new Accounts({ store, domain: "alpha.test", clock: time.now, random: randomBytes });
  const alice = parseIdentity("alice@alpha.test");
  const { code } = await accounts.invite(alice, "A");
  const outcomes = await Promise.all(
    Array.from({ length: 12 }, () => codeOf(accounts.authenticateCode("alice", "no"))),
  );
  expect(outcomes.filter((one) => one === "auth-failed")).toHaveLength(5);
  expect(outcomes.filter((one) => one === "busy")).toHaveLength(7);
  expect(await store.user(alice)).toMatchObject({ failures: 5 });
  expect(await codeOf(accounts.authenticateCode("alice", code))).toBe("busy");
});

test("four are worked on at once, whoever they are for; those of one account one after the other", async () => {
  const attempts = new Attempts(() => new Date());
  const running = new Map<string, number>();
  let most = 0;
  const ends: (() => void)[] = [];
  const begin = (who: string) =>
    attempts.one(who, async () => {
      running.set(who, (running.get(who) ?? 0) + 1);
      expect(running.get(who)).toBe(1);
      most = Math.max(most, running.size);
      await new Promise<void>((resolve) => void ends.push(resolve));
      running.delete(who);
    });
  const all = Array.from({ length: 24 }, (_, n) => begin(`who${n % 8}`));
  let done = false;
  void Promise.all(all).then(() => {
    done = true;
  });
  while (!done) {
    ends.shift()?.();
    await new Promise((resolve) => setImmediate(resolve));
  }
  expect(most).toBe(4);
});

test("who comes when too many wait is told to come again", async () => {
  const attempts = new Attempts(() => new Date());
  const never = Array.from({ length: 100 }, (_, n) =>
    codeOf(attempts.one(`who${n % 7}`, () => new Promise<never>(() => undefined))),
  );
  expect(await Promise.race(never)).toBe("busy");
});

test("twenty failures from one place in ten minutes are enough, whoever they were for; another place goes on", async () => {
  const time = new VirtualTime();
  const attempts = new Attempts(time.now);
  const codes: string[] = [];
  for (let n = 0; n < 22; n += 1) codes.push(await codeOf(attempts.from(`2001:db8::${n}`, wrong)));
  expect(codes).toEqual([...Array<string>(20).fill("auth-failed"), "busy", "busy"]);
  expect(await codeOf(attempts.from("2001:db8:0:1::1", wrong))).toBe("auth-failed");
  expect(await codeOf(attempts.from("2001:db8::1", async () => 1))).toBe("busy");
  time.advance(600_000);
  expect(await codeOf(attempts.from("2001:db8::1", async () => 1))).toBe("right");
  for (let n = 0; n < 50; n += 1) expect(await codeOf(attempts.from("192.0.2.1", async () => 1))).toBe("right");
});

test.each([
  ["2001:db8::5", "2001:db8:0:0"],
  ["2001:DB8:0:0:1:2:3:4", "2001:db8:0:0"],
  ["2001:db8:1:2:3::", "2001:db8:1:2"],
  ["::1", "0:0:0:0"],
  ["::ffff:192.0.2.7", "192.0.2.7"],
  ["192.0.2.7", "192.0.2.7"],
])("%s is in the place %s", (host, place) => expect(network(host)).toBe(place));
