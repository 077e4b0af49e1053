import { eventCalls } from "./event-calls.ts";
import { inboxCalls } from "./inbox-calls.ts";
import { itemCalls } from "./item-calls.ts";
import { outboxCalls } from "./outbox-calls.ts";
import { sendingCalls } from "./sending-calls.ts";
import type { Transaction } from "./transaction.ts";
import { transferCalls } from "./transfer-calls.ts";

/** Everything that the database worker can be asked for. */
export const CALLS = { ...eventCalls, ...inboxCalls, ...itemCalls, ...outboxCalls, ...sendingCalls, ...transferCalls };

export type CallName = keyof typeof CALLS;

type Arguments<K extends CallName> = (typeof CALLS)[K] extends (tx: Transaction, ...rest: infer A) => unknown
  ? A
  : never;

/** What a call takes besides the transaction: nothing or one value. */
export type CallArguments<K extends CallName> = Arguments<K>;
export type CallResult<K extends CallName> = ReturnType<(typeof CALLS)[K]>;
