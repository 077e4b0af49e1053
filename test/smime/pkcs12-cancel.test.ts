import { randomBytes } from "node:crypto";
import { readdirSync, readFileSync } from "node:fs";
import { setImmediate } from "node:timers/promises";
import { beforeEach, expect, test } from "vitest";
import { SuiteError } from "../../src/pki/suite-error.ts";
import { generatePassphrase, passphraseOctets } from "../../src/smime/passphrase.ts";
import { derivePbkdf2, Effort } from "../../src/smime/pbe.ts";
import { derivePkcs12, pkcs12Purpose } from "../../src/smime/pkcs12-kdf.ts";
import { readPkcs12 } from "../../src/smime/pkcs12-read.ts";
import { writePkcs12 } from "../../src/smime/pkcs12-write.ts";
import { endless } from "../support/pkcs12.ts";
import { makeTestDomain } from "../support/pki.ts";
import { failureOf } from "../support/smime.ts";

/** How many threads of JavaScript this process has beside the main one. */
const workers = () =>
  readdirSync("/proc/self/task").filter((id) => {
    try {
      return readFileSync(`/proc/self/task/${id}/comm`, "utf8") === "WorkerThread\n";
    } catch {
      return false; // it has ended
    }
  }).length;

const iterations = 10_000_000;
const long = { digest: "sha512", purpose: pkcs12Purpose.mac, passphrase: Buffer.of(0, 65, 0, 0), iterations } as const;
const derivation = { ...long, salt: Buffer.alloc(8), length: 64 };

beforeEach(async () => {
  await expect.poll(workers).toBe(0);
});

test("aborting ends the thread that derives a key", async () => {
  const stop = new AbortController();
  const failure = failureOf(derivePkcs12(derivation, stop.signal));
  await expect.poll(workers).toBe(1);
  stop.abort();
  expect((await failure).code).toBe("cancelled");
  await expect.poll(workers).toBe(0);
});

test("whoever aborts may say why; who has aborted before gets nothing begun", async () => {
  const why = new SuiteError("store-failed", "why", { fault: "local" });
  expect(await failureOf(derivePkcs12(derivation, AbortSignal.abort(why)))).toBe(why);
  expect((await failureOf(derivePkcs12({ ...derivation, iterations: 1 }, AbortSignal.abort()))).code).toBe("cancelled");
  expect(workers()).toBe(0);
});

test("waiting for PBKDF2 ends at once, too, and nothing keeps listening to the signal", async () => {
  const stop = new AbortController();
  const pbkdf2 = { salt: Buffer.alloc(8), keyLength: undefined, digest: "sha256" } as const;
  const slow = { ...pbkdf2, iterations: 3_000_000n };
  const began = performance.now();
  const failure = failureOf(derivePbkdf2(slow, Buffer.from("x"), 32, new Effort(), stop.signal));
  await setImmediate();
  stop.abort();
  expect((await failure).code).toBe("cancelled");
  expect(performance.now() - began).toBeLessThan(300); // all of it takes half a second and more
  const { signal } = new AbortController();
  let listeners = 0;
  const [add, remove] = [signal.addEventListener.bind(signal), signal.removeEventListener.bind(signal)];
  signal.addEventListener = (...args: Parameters<typeof add>) => {
    listeners += 1;
    add(...args);
  };
  signal.removeEventListener = (...args: Parameters<typeof remove>) => {
    listeners -= 1;
    remove(...args);
  };
  await derivePbkdf2({ ...pbkdf2, iterations: 1n }, Buffer.from("x"), 32, new Effort(), signal);
  await derivePkcs12({ ...derivation, iterations: 5_000 }, signal);
  expect(listeners).toBe(0);
});

test("a file that would take minutes to read is given up when it is aborted: MAC, keys, certificates", async () => {
  const passphrase = "correct horse battery";
  for (const where of ["mac", "pbmac1", "pbes1", "pbes2"] as const) {
    const stop = new AbortController();
    const failure = failureOf(
      readPkcs12(endless(where, passphraseOctets(passphrase)), passphrase, undefined, stop.signal),
    );
    if (where === "mac" || where === "pbes1") await expect.poll(workers).toBeGreaterThan(0);
    else await setImmediate(); // all before it is done in one go
    stop.abort();
    const aborted = performance.now();
    expect([where, (await failure).code]).toEqual([where, "cancelled"]);
    expect(performance.now() - aborted, where).toBeLessThan(1_000); // each takes several seconds
    await expect.poll(workers).toBe(0);
  }
});

test.each(["modern", "pbmac1", "legacy"] as const)("writing is given up wherever it is: %s", async (protection) => {
  const { auth } = makeTestDomain({ domain: "example.test" }).person({ identity: "alice@example.test" });
  const keys = [{ privateKey: auth.privateKey, certificates: [auth.certificate] }];
  const o = { keys, chain: auth.chain, passphrase: generatePassphrase(randomBytes), protection };
  let asked = 0;
  const counted = (length: number) => {
    asked += 1;
    return randomBytes(length);
  };
  const whole = await writePkcs12({ ...o, random: counted });
  expect(whole.length).toBeGreaterThan(500);
  for (let last = 1; last <= asked; last++) {
    const stop = new AbortController();
    let count = 0;
    const random = (length: number) => {
      if (++count === last) stop.abort();
      return randomBytes(length);
    };
    expect((await failureOf(writePkcs12({ ...o, random }, stop.signal))).code).toBe("cancelled");
    expect(count).toBeLessThan(last + 2);
  }
});

test("writing is given up while the MAC's key is derived", async () => {
  const { auth } = makeTestDomain({ domain: "example.test" }).person({ identity: "alice@example.test" });
  const keys = [{ privateKey: auth.privateKey, certificates: [auth.certificate] }];
  const stop = new AbortController();
  const o = { keys, chain: [], passphrase: generatePassphrase(randomBytes), random: randomBytes };
  const failure = failureOf(writePkcs12({ ...o, protection: "modern" }, stop.signal));
  await expect.poll(workers, { interval: 2 }).toBe(1);
  const aborted = performance.now();
  stop.abort();
  expect((await failure).code).toBe("cancelled");
  expect(performance.now() - aborted).toBeLessThan(200); // it takes more than half a second
});
