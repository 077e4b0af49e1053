/**
 * What people and nodes elsewhere wrote, made fit for the owner's terminal: control characters could clear the screen, rename the
 * window or make one line look like another, so each becomes `�`.
 */
export function visible(text: string): string {
  return text.replaceAll("\r\n", "\n").replace(CONTROL, "\u{fffd}");
}

/** As `visible`, for what has to stay on one line: line ends too, and what would turn the order of the rest of the line. */
export function visibleLine(text: string): string {
  return visible(text.replace(/[\t\r\n\u2028\u2029]+/g, " ")).replace(TURNING, "\u{fffd}");
}

/** JSON in which nothing can steer a terminal; it reads back as the same value. */
export function visibleJson(value: unknown, indent?: number): string {
  const escaped = (one: string) => `\\u${one.charCodeAt(0).toString(16).padStart(4, "0")}`;
  return JSON.stringify(value, undefined, indent).replace(HIGH_CONTROL, escaped).replace(TURNING, escaped);
}

/** C0 but tab and line feed, DEL, C1. */
const CONTROL = /[\x00-\x08\x0b-\x1f\x7f-\x9f]/g;
const HIGH_CONTROL = /[\x7f-\x9f]/g;
/** Embeddings, overrides and isolates of the bidirectional algorithm. */
const TURNING = /[\u202a-\u202e\u2066-\u2069]/g;
