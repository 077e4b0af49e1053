import { SuiteError } from "../pki/suite-error.ts";

/** An event of a stream (HTML Living Standard §9.2). */
export interface StreamEvent {
  readonly type: string;
  readonly data: string;
}

/** Comments and events longer than this end the stream. */
const MAX_EVENT_BYTES = 1_048_576;

/** `data` has no line ends. */
export function eventText({ type, data }: StreamEvent): string {
  return `event: ${type}\ndata: ${data}\n\n`;
}

/** What keeps a stream alive that has nothing to tell. */
export const COMMENT = ":\n\n";

/** Reads a stream piece by piece. Fields that nobody asked for are passed over. */
export class StreamReader {
  readonly #decoder = new TextDecoder("utf-8");
  #text = "";
  #type = "";
  #data: string[] = [];
  #size = 0;
  #cr = false;

  /** The events that are whole now. @throws SuiteError limit-exceeded */
  push(piece: Uint8Array): StreamEvent[] {
    this.#text += this.#decoder.decode(piece, { stream: true });
    // Of CRLF the second half may come later.
    if (this.#cr && this.#text.startsWith("\n")) this.#text = this.#text.slice(1);
    if (this.#text !== "") this.#cr = this.#text.endsWith("\r");
    const lines = this.#text.split(/\r\n|\r|\n/);
    this.#text = lines.pop() ?? "";
    const events = lines.flatMap((line) => this.#line(line));
    if (this.#size + this.#text.length > MAX_EVENT_BYTES)
      throw new SuiteError("limit-exceeded", "an event of the stream is too large", { fault: "service" });
    return events;
  }

  #line(line: string): StreamEvent[] {
    if (line === "") {
      const event = { type: this.#type === "" ? "message" : this.#type, data: this.#data.join("\n") };
      const told = this.#data.length > 0;
      this.#type = "";
      this.#data = [];
      this.#size = 0;
      return told ? [event] : [];
    }
    const [, field = "", value = ""] = /^([^:]*)(?:: ?(.*))?$/s.exec(line) ?? [];
    if (field === "event") this.#type = value;
    if (field === "data") this.#data.push(value);
    if (field !== "") this.#size += line.length;
    return [];
  }
}
