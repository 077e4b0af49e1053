import fc from "fast-check";
import { expect, test } from "vitest";
import type { ItemId, ReceiptState } from "../../src/delivery/envelope.ts";
import { bob, carol, type Delivery, draft, failure, sender, unreachable } from "../delivery/party.ts";
import { temporaryFolder } from "../support/tmp.ts";
import { VirtualTime } from "../support/virtual-time.ts";

type Party = Awaited<ReturnType<typeof sender>>;

/** What the test knows of a row: what its peer answered and what the owner wanted. */
interface Known {
  item: ItemId;
  title: string;
  peer: typeof bob;
  yes: boolean;
  refused: boolean;
  cancelled: boolean;
}

type Step =
  | { do: "accept"; to: number; kind: "message" | "mail" | "file" }
  | { do: "answer"; which: number; what: "yes" | "unreachable" | "busy" | "refused" | "not-admitted" }
  | { do: "owner"; which: number; what: "hold" | "release" | "retry" | "cancel" }
  | { do: "pass"; seconds: number }
  | { do: "wake"; peer: number }
  | { do: "directory"; up: boolean }
  | { do: "step clock"; seconds: number }
  | { do: "restart" };

const which = fc.nat(50);
const step: fc.Arbitrary<Step> = fc.oneof(
  {
    weight: 6,
    arbitrary: fc.record({
      do: fc.constant("accept" as const),
      to: fc.nat(1),
      kind: fc.constantFrom("message", "mail", "file"),
    }),
  },
  {
    weight: 8,
    arbitrary: fc.record({
      do: fc.constant("answer" as const),
      which,
      what: fc.constantFrom("yes", "yes", "unreachable", "busy", "refused", "not-admitted"),
    }),
  },
  {
    weight: 3,
    arbitrary: fc.record({
      do: fc.constant("owner" as const),
      which,
      what: fc.constantFrom("hold", "release", "retry", "cancel"),
    }),
  },
  { weight: 3, arbitrary: fc.record({ do: fc.constant("pass" as const), seconds: fc.constantFrom(1, 16, 70, 4_000) }) },
  { weight: 2, arbitrary: fc.record({ do: fc.constant("wake" as const), peer: fc.nat(1) }) },
  { weight: 1, arbitrary: fc.record({ do: fc.constant("directory" as const), up: fc.boolean() }) },
  {
    weight: 1,
    arbitrary: fc.record({ do: fc.constant("step clock" as const), seconds: fc.constantFrom(-86_400, -60, 60, 3_600) }),
  },
  { weight: 1, arbitrary: fc.constant({ do: "restart" as const }) },
);

class World {
  readonly #directory: string;
  readonly #time = new VirtualTime();
  readonly known: Known[] = [];
  /** What should never have happened. */
  readonly violations: string[] = [];
  /** Deliveries that nobody has answered yet, in the order asked. */
  #open: Delivery[] = [];
  #party: Party | undefined;
  #directoryUp = true;

  constructor(directory: string) {
    this.#directory = directory;
  }

  get party(): Party {
    if (this.#party === undefined) throw new Error("not started");
    return this.#party;
  }

  async start(): Promise<void> {
    this.#party = await sender(this.#directory, { time: this.#time });
    this.#party.endpoint.answer = (delivery) => {
      this.#check(delivery);
      this.#open.push(delivery);
      delivery.signal.addEventListener("abort", () => this.#settle(delivery));
    };
    this.#directoryIs(this.#directoryUp);
  }

  async end(): Promise<void> {
    this.#open = [];
    await this.#party?.[Symbol.asyncDispose]();
    this.#party = undefined;
  }

  async run(one: Step): Promise<void> {
    const { outbox } = this.party;
    if (one.do === "accept") {
      const peer = one.to === 0 ? bob : carol;
      const title = `t${this.known.length}`;
      const item = await outbox.accept(draft(title, { to: [peer], kind: one.kind, lifetimeSeconds: 2_592_000 }));
      this.known.push({ item, title, peer, yes: false, refused: false, cancelled: false });
    } else if (one.do === "answer") this.#answer(one.which, one.what);
    else if (one.do === "owner") {
      const row = this.known[one.which % Math.max(1, this.known.length)];
      if (row === undefined) return;
      if (one.what === "release") await outbox.release(row.item);
      else await outbox[one.what](row.item);
      if (one.what === "cancel") row.cancelled = true;
    } else if (one.do === "pass") this.#time.advance(one.seconds * 1_000);
    else if (one.do === "wake") outbox.wake(one.peer === 0 ? bob : carol);
    else if (one.do === "directory") this.#directoryIs(one.up);
    else if (one.do === "step clock") this.#time.stepWall(one.seconds * 1_000);
    else {
      await this.end();
      await this.start();
    }
    await this.quiet();
  }

  /** From now on everything succeeds: whatever is not final has to arrive. */
  async finish(): Promise<void> {
    this.#directoryIs(true);
    for (let round = 0; round < 60 && (await this.party.outbox.receipts({ open: true })).length > 0; round += 1) {
      for (const peer of [bob, carol]) await this.party.outbox.release(peer);
      await this.quiet();
      while (this.#open.length > 0) {
        this.#answer(0, "yes");
        await this.quiet();
      }
      this.#time.advance(4_000_000);
      await this.quiet();
    }
  }

  async states(): Promise<Map<ItemId, ReceiptState>> {
    return new Map((await this.party.outbox.receipts()).map(({ item, status }) => [item, status]));
  }

  async quiet(): Promise<void> {
    for (let n = 0; n < 12; n += 1) {
      await this.party.store.inside.database.call("eventBounds");
      await new Promise((resolve) => setImmediate(resolve));
    }
  }

  #directoryIs(up: boolean): void {
    this.#directoryUp = up;
    this.party.sixid.failure = up ? undefined : failure("directory-unavailable", { fault: "service", temporary: true });
  }

  /** What must hold whenever something is sent. */
  #check(delivery: Delivery): void {
    const { envelope } = delivery.item;
    const row = this.#rowOf(delivery);
    if (row.yes || row.refused || row.cancelled) this.violations.push(`${row.title} was final and is sent again`);
    for (const other of this.#open) {
      if (other.item.envelope.id === envelope.id) this.violations.push(`${row.title} is sent twice at once`);
      const sameLane = (other.item.envelope.kind === "file") === (envelope.kind === "file");
      if (other.to === delivery.to && sameLane) this.violations.push("two attempts in one lane");
    }
  }

  #answer(n: number, what: Extract<Step, { do: "answer" }>["what"]): void {
    const delivery = this.#open[n % Math.max(1, this.#open.length)];
    if (delivery === undefined) return;
    const row = this.#rowOf(delivery);
    this.#settle(delivery);
    if (what === "yes") {
      row.yes = true;
      delivery.yes();
    } else if (what === "refused") {
      row.refused = true;
      delivery.no(failure("forbidden"));
    } else if (what === "not-admitted") delivery.no(failure("refused-by-peer"));
    else delivery.no(what === "busy" ? failure("busy", { temporary: true }) : unreachable());
  }

  #rowOf(delivery: Delivery): Known {
    const row = this.known.find(({ item }) => item === delivery.item.envelope.id);
    if (row === undefined) throw new Error("something is sent that nobody accepted");
    return row;
  }

  #settle(delivery: Delivery): void {
    this.#open = this.#open.filter((other) => other !== delivery);
  }
}

test("whatever peers, owner, directory, clock and restarts do: a receipt says what happened, and what is not final arrives", async () => {
  await fc.assert(
    fc.asyncProperty(fc.array(step, { minLength: 5, maxLength: 40 }), async (steps) => {
      await using folder = await temporaryFolder();
      const world = new World(folder.path);
      await world.start();
      try {
        for (const one of steps) await world.run(one);
        await world.finish();
        expect(world.violations).toEqual([]);
        const states = await world.states();
        for (const row of world.known) {
          const state = states.get(row.item)?.state;
          const expected = row.yes ? "delivered" : row.refused || row.cancelled ? "failed" : "delivered";
          expect({ title: row.title, state }).toEqual({ title: row.title, state: expected });
        }
      } finally {
        await world.end();
      }
    }),
    { numRuns: Number(process.env["FUZZ_RUNS"] ?? 40) },
  );
}, 120_000);
