/** What `Progress` writes to: standard error, if a person reads it. */
export interface Terminal {
  readonly isTTY?: boolean;
  write(text: string): unknown;
}

const EVERY_MS = 250;
const UNITS = ["B", "KiB", "MiB", "GiB", "TiB"];

/** Tells a terminal, at most four times a second, how many bytes have passed and how fast; to what is none it says nothing. */
export class Progress {
  readonly #what: string;
  readonly #total: number;
  readonly #terminal: Terminal;
  readonly #now: () => number;
  readonly #began: number;
  #bytes = 0;
  #toldAt: number;
  #shown = false;

  /** @param o.total bytes to come; 0: not known @param o.now milliseconds */
  constructor(what: string, o: { total: number; terminal: Terminal; now: () => number }) {
    this.#what = what;
    this.#total = o.total;
    this.#terminal = o.terminal;
    this.#now = o.now;
    this.#began = o.now();
    this.#toldAt = this.#began;
  }

  /** So many bytes have passed. */
  at(bytes: number): void {
    this.#bytes = bytes;
    this.#tell();
  }

  async *through(source: AsyncIterable<Buffer>): AsyncGenerator<Buffer> {
    for await (const piece of source) {
      this.at(this.#bytes + piece.length);
      yield piece;
    }
  }

  /** Clears the line. */
  end(): void {
    if (this.#shown) this.#terminal.write("\r\x1b[K");
    this.#shown = false;
  }

  #tell(): void {
    const now = this.#now();
    if (this.#terminal.isTTY !== true || now - this.#toldAt < EVERY_MS) return;
    this.#toldAt = now;
    this.#shown = true;
    const of = this.#total > 0 ? ` of ${sized(this.#total)}` : "";
    const rate = (this.#bytes * 1000) / (now - this.#began);
    this.#terminal.write(`\r\x1b[K${this.#what}: ${sized(this.#bytes)}${of}, ${sized(rate)}/s`);
  }
}

function sized(bytes: number): string {
  const power = Math.min(UNITS.length - 1, Math.floor(Math.log2(Math.max(1, bytes)) / 10));
  return `${(bytes / 1024 ** power).toFixed(power === 0 ? 0 : 1)} ${UNITS[power]}`;
}
