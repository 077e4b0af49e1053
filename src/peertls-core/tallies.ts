import { Counter, type Histogram, type Registry } from "prom-client";

// Numbers that are counted with every handshake. prom-client hashes the labels each time, which costs more than the policy;
// here a count is an addition, and prom-client gets the sums when somebody asks.

/** Labels of one series, in the order in which they are written. */
type Labels = Readonly<Record<string, string>>;

/** A counter whose series are looked up once and then counted in. */
export class CounterTally {
  readonly #series = new Map<string, { readonly labels: Labels; value: number }>();

  constructor(o: { name: string; help: string; labelNames: string[] }, registry: Registry) {
    const series = this.#series;
    new Counter({
      ...o,
      registers: [registry],
      collect() {
        this.reset();
        for (const { labels, value } of series.values()) this.inc(labels, value);
      },
    });
  }

  /** @param key the same for the same labels, and for no others */
  add(key: string, labels: () => Labels, by = 1): void {
    const known = this.#series.get(key);
    if (known === undefined) this.#series.set(key, { labels: labels(), value: by });
    else known.value += by;
  }
}

interface Buckets {
  readonly labels: Labels;
  /** Per upper bound, how many lay at or below it and above the one before; the last: above all. */
  readonly counts: number[];
  sum: number;
  count: number;
}

/** A histogram as prom-client's, which has no way to be handed sums: hence only its form is given to the registry. */
export class HistogramTally {
  readonly name: string;
  readonly help: string;
  readonly type = "histogram";
  readonly aggregator = "sum";
  readonly #bounds: readonly number[];
  readonly #series = new Map<string, Buckets>();

  constructor(
    o: { name: string; help: string; labelNames: readonly string[]; buckets: readonly number[] },
    registry: Registry,
  ) {
    this.name = o.name;
    this.help = o.help;
    this.#bounds = o.buckets;
    if (o.labelNames.length === 0) this.#seriesOf("", () => ({})); // shown from the beginning
    registry.registerMetric(this as unknown as Histogram);
  }

  observe(key: string, labels: () => Labels, value: number): void {
    const into = this.#seriesOf(key, labels);
    let at = 0;
    while (value > (this.#bounds[at] ?? Infinity)) at += 1;
    into.counts[at] = (into.counts[at] ?? 0) + 1;
    into.sum += value;
    into.count += 1;
  }

  #seriesOf(key: string, labels: () => Labels): Buckets {
    const known = this.#series.get(key);
    if (known !== undefined) return known;
    const made = { labels: labels(), counts: Array<number>(this.#bounds.length + 1).fill(0), sum: 0, count: 0 };
    this.#series.set(key, made);
    return made;
  }

  reset(): void {
    this.#series.clear();
  }

  /** Asked by the registry. */
  get() {
    const { name, help, type, aggregator } = this;
    return Promise.resolve({ name, help, type, aggregator, values: [...this.#series.values()].flatMap(this.#values) });
  }

  readonly #values = ({ labels, counts, sum, count }: Buckets) => {
    let below = 0;
    const buckets = counts.map((one, at) => {
      below += one;
      const value = below;
      return { labels: { le: this.#bounds[at] ?? "+Inf", ...labels }, value, metricName: `${this.name}_bucket` };
    });
    return [
      ...buckets,
      { labels, value: sum, metricName: `${this.name}_sum` },
      { labels, value: count, metricName: `${this.name}_count` },
    ];
  };
}
