import { describe, expect, test } from "vitest";
import type { Dns, SrvRecord } from "../../src/peertls-core/dns.ts";
import { SuiteError } from "../../src/pki/suite-error.ts";
import { Locator, selectionOrder } from "../../src/sixid/locate.ts";
import { failureOf } from "../support/smime.ts";

const srv = (target: string, priority = 0, weight = 0, port = 4606): SrvRecord => ({ target, priority, weight, port });

/** A generator of numbers from 0 to 1 that are the same in every run. */
function draws(): () => number {
  let state = 1;
  return () => {
    state = (Math.imul(state, 1_664_525) + 1_013_904_223) >>> 0;
    return state / 2 ** 32;
  };
}

describe("the order of RFC 2782", () => {
  const first = (records: readonly SrvRecord[], count = 1_000) => {
    const random = draws();
    const counts: Record<string, number> = {};
    for (let n = 0; n < count; n += 1) {
      const order = selectionOrder(records, random);
      expect(order.toSorted((a, b) => a.priority - b.priority)).toEqual(order);
      expect(new Set(order)).toEqual(new Set(records));
      const target = order[0]?.target ?? "";
      counts[target] = (counts[target] ?? 0) + 1;
    }
    return counts;
  };

  test("priority goes before weight, always", () => {
    expect(first([srv("heavy", 10, 65_535), srv("light", 5, 0), srv("last", 20, 1)])).toEqual({ light: 1_000 });
  });

  test("in 1,000 draws each comes as often as its weight says, within four standard deviations", () => {
    const counts = first([srv("a", 0, 60), srv("b", 0, 30), srv("c", 0, 10), srv("other", 1, 100)]);
    for (const [target, share] of [
      ["a", 0.6],
      ["b", 0.3],
      ["c", 0.1],
    ] as const) {
      const deviation = Math.sqrt(1_000 * share * (1 - share));
      expect(Math.abs((counts[target] ?? 0) - 1_000 * share)).toBeLessThan(4 * deviation);
    }
    expect(counts["other"]).toBeUndefined();
  });

  test("one of weight 0 beside a heavy one comes seldom, but comes; all of weight 0 are tried", () => {
    const counts = first([srv("zero"), srv("heavy", 0, 20)], 4_000);
    expect(counts["zero"]).toBeGreaterThan(80);
    expect(counts["zero"]).toBeLessThan(400);
    expect(first([srv("x"), srv("y")])).toEqual({ x: 1_000 }); // all equal: as they came
    expect(selectionOrder([], Math.random)).toEqual([]);
  });

  test("the ends of what may be drawn draw somebody", () => {
    for (const drawn of [0, 0.999_999_999_999])
      expect(selectionOrder([srv("a", 0, 1), srv("b", 0, 65_535)], () => drawn)).toHaveLength(2);
  });
});

/** A DNS that knows this, and counts what it was asked. */
class Zone implements Dns {
  readonly asked: string[] = [];
  readonly #services: Record<string, readonly SrvRecord[] | "silent">;
  readonly #addresses: Record<string, readonly string[] | "silent">;

  constructor(
    services: Record<string, readonly SrvRecord[] | "silent">,
    addresses: Record<string, readonly string[] | "silent">,
  ) {
    this.#services = services;
    this.#addresses = addresses;
  }

  services(name: string): Promise<readonly SrvRecord[]> {
    return this.#answer(name, this.#services[name] ?? []);
  }

  addresses(host: string): Promise<readonly string[]> {
    return this.#answer(host, this.#addresses[host] ?? []);
  }

  async #answer<T>(name: string, answer: readonly T[] | "silent"): Promise<readonly T[]> {
    this.asked.push(name);
    if (answer !== "silent") return answer;
    throw new SuiteError("unreachable", "the DNS does not answer", { fault: "service", temporary: true });
  }
}

describe("finding a domain's servers", () => {
  let now = 0;
  const locator = (dns: Dns) => new Locator({ dns, clock: () => new Date(now), random: () => 0 });

  test("all addresses of the targets, in their order, with their ports", async () => {
    const dns = new Zone(
      { "_sixid._tcp.b.test": [srv("two.b.test", 2, 0, 4607), srv("one.b.test", 1)] },
      { "one.b.test": ["2001:db8::1", "192.0.2.1"], "two.b.test": ["2001:db8::2"] },
    );
    expect(await locator(dns).servers("sixid", "b.test")).toEqual([
      { host: "2001:db8::1", port: 4606 },
      { host: "192.0.2.1", port: 4606 },
      { host: "2001:db8::2", port: 4607 },
    ]);
    expect(dns.asked).not.toContain("b.test");
  });

  test.each([
    ["no record", []],
    ["the target that says there is none", [srv("")]],
  ])("%s: the domain has no directory, which is remembered for 30 s", async (_name, records) => {
    const dns = new Zone({ "_sixid._tcp.b.test": records }, { "b.test": ["2001:db8::9"] });
    const of = locator(dns);
    for (const [at, asked] of [
      [0, 1],
      [29_999, 1],
      [30_000, 2],
    ] as const) {
      now = at;
      expect((await failureOf(of.servers("sixid", "b.test"))).code).toBe("unknown-recipient");
      expect(dns.asked).toHaveLength(asked);
    }
    now = 0;
  });

  test("a DNS that does not answer, and servers without any address: unavailable, and asked again at once", async () => {
    const dns = new Zone(
      { "_irp._tcp.silent.test": "silent", "_irp._tcp.b.test": [srv("gone.b.test"), srv("silent.b.test")] },
      { "silent.b.test": "silent" },
    );
    const of = locator(dns);
    for (const domain of ["silent.test", "silent.test", "b.test"])
      expect(await failureOf(of.servers("irp", domain))).toMatchObject({
        code: "directory-unavailable",
        temporary: true,
      });
    expect(dns.asked.filter((name) => name === "_irp._tcp.silent.test")).toHaveLength(2);
  });

  test("a target whose address nobody knows leaves the others", async () => {
    const dns = new Zone(
      { "_irp._tcp.b.test": [srv("silent.b.test"), srv("one.b.test", 1, 0, 1)] },
      { "silent.b.test": "silent", "one.b.test": ["::1"] },
    );
    expect(await locator(dns).servers("irp", "b.test")).toEqual([{ host: "::1", port: 1 }]);
  });

  test("the records are kept for a minute, the draw is not", async () => {
    const dns = new Zone({ "_irp._tcp.b.test": [srv("one.b.test")] }, { "one.b.test": ["::1"] });
    const of = locator(dns);
    for (const at of [0, 59_999, 60_000]) {
      now = at;
      await of.servers("irp", "b.test");
    }
    now = 0;
    expect(dns.asked.filter((name) => name.startsWith("_irp"))).toHaveLength(2);
  });

  test("a domain that names a thousand servers has sixteen addresses tried", async () => {
    const many = Array.from({ length: 1_000 }, (_, n) => srv(`s${n}.b.test`));
    const addresses = Object.fromEntries(many.map(({ target }) => [target, ["::1", "::2", "::3"]]));
    const dns = new Zone({ "_irp._tcp.b.test": many }, addresses);
    expect(await locator(dns).servers("irp", "b.test")).toHaveLength(16);
    expect(dns.asked).toHaveLength(9);
  });
});
