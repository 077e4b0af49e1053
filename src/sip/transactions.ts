import { SuiteError } from "../pki/suite-error.ts";
import { type SipRequest, type SipResponse, value, values } from "./grammar.ts";
import { parseVia } from "./headers.ts";

/** Timers of RFC 3261 §17 in milliseconds. */
const T1 = 500;
const T2 = 4_000;
const TIMER_F = 64 * T1;
const TIMER_J = 64 * T1;
const MAX_SERVER = 20_000;

/**
 * Branch, sent-by and method name a transaction (§17.1.3, §17.2.3). Without the magic cookie it is an RFC 2543 program's,
 * whose branches need not differ: then all that its repeats have in common.
 * @throws SuiteError syntax for a malformed top Via, and for a branch that is the cookie alone
 */
export function transactionKey(message: SipRequest | SipResponse, method: string): string {
  const top = values(message.headers, "via")[0] ?? "";
  const via = parseVia(top);
  const branch = via.parameters.get("branch") ?? "";
  if (/^z9hG4bK$/i.test(branch)) throw new SuiteError("syntax", "the branch names no transaction", { fault: "peer" });
  if (/^z9hG4bK/i.test(branch)) return `${branch}|${via.host}:${via.port ?? ""}|${method}`;
  const same = ["from", "to", "call-id", "cseq"].map((name) => value(message.headers, name) ?? "");
  return [message.kind === "request" ? message.uri : "", top, ...same].join("\n");
}

/** The transaction of ours that a response answers; undefined unless its one Via is ours (§8.1.3.3) and well formed. */
export function responseKey(response: SipResponse): string | undefined {
  if (values(response.headers, "via").length !== 1) return undefined;
  try {
    return transactionKey(response, value(response.headers, "cseq")?.split(/[ \t]+/)[1] ?? "");
  } catch (error) {
    if (error instanceof SuiteError) return undefined;
    throw error;
  }
}

/** Requests that were taken, and what they were answered: a repeat gets the same answer, or waits for it. */
export class ServerTransactions {
  readonly #known = new Map<string, { answer: Buffer | undefined; timer: NodeJS.Timeout | undefined }>();

  /** @returns `new` to be handled; the answer to send again; `pending` while it is being handled; `full` */
  begin(key: string): "new" | "pending" | "full" | Buffer {
    const known = this.#known.get(key);
    if (known !== undefined) return known.answer ?? "pending";
    if (this.#known.size >= MAX_SERVER) return "full";
    this.#known.set(key, { answer: undefined, timer: undefined });
    return "new";
  }

  /** @param keep over UDP repeats may come for 64·T1 (timer J); over streams there are none */
  end(key: string, answer: Buffer, keep: boolean): void {
    if (!keep) {
      this.#known.delete(key);
      return;
    }
    const timer = setTimeout(() => this.#known.delete(key), TIMER_J);
    timer.unref();
    this.#known.set(key, { answer, timer });
  }

  stop(): void {
    for (const { timer } of this.#known.values()) clearTimeout(timer);
    this.#known.clear();
  }
}

interface Waiting {
  resolve(response: SipResponse): void;
  reject(error: Error): void;
  stop(): void;
}

/** Non-INVITE client transactions (§17.1.2): one final response each, or none in time. */
export class ClientTransactions {
  readonly #waiting = new Map<string, Waiting>();

  /**
   * Sends a request and waits for its final response.
   * @param unreliable over UDP it is sent again: after T1, doubling to T2
   * @returns undefined when there was none within 64·T1 or the flow ended
   */
  send(
    key: string,
    bytes: Buffer,
    send: (bytes: Buffer) => void,
    unreliable: boolean,
    signal: AbortSignal,
  ): Promise<SipResponse | undefined> {
    return new Promise((resolve) => {
      let interval = T1;
      let again: NodeJS.Timeout | undefined;
      const repeat = () => {
        send(bytes);
        interval = Math.min(interval * 2, T2);
        again = setTimeout(repeat, interval);
      };
      const stop = () => {
        clearTimeout(again);
        clearTimeout(timer);
        signal.removeEventListener("abort", give);
        this.#waiting.delete(key);
      };
      const give = () => {
        stop();
        resolve(undefined);
      };
      const timer = setTimeout(give, TIMER_F);
      signal.addEventListener("abort", give, { once: true });
      this.#waiting.set(key, {
        stop,
        reject: give,
        resolve: (response) => {
          if (response.status < 200) return;
          stop();
          resolve(response);
        },
      });
      if (signal.aborted) return give();
      send(bytes);
      if (unreliable) again = setTimeout(repeat, interval);
    });
  }

  /** @returns false for a response that nobody waits for: it is dropped (§18.1.2) */
  receive(key: string | undefined, response: SipResponse): boolean {
    const waiting = key === undefined ? undefined : this.#waiting.get(key);
    waiting?.resolve(response);
    return waiting !== undefined;
  }

  stop(): void {
    for (const waiting of [...this.#waiting.values()]) waiting.reject(new Error("stopped"));
  }
}
