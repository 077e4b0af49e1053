/** From `notBefore` to `notAfter`, both included. */
export interface Window {
  readonly notBefore: Date;
  readonly notAfter: Date;
}

/** Content of a UTCTime, `YYMMDDHHMMSSZ`: the only form of RFC 5280 §4.1.2.5.1. Undefined if it is no time. */
export function parseUtcTime(text: string): Date | undefined {
  if (!/^\d{12}Z$/.test(text)) return undefined;
  const year = Number(text.slice(0, 2));
  return dateOf(year + (year >= 50 ? 1900 : 2000), text.slice(2));
}

/** Content of a GeneralizedTime, `YYYYMMDDHHMMSSZ`: the only form of RFC 5280 §4.1.2.5.2. Undefined if it is no time. */
export function parseGeneralizedTime(text: string): Date | undefined {
  if (!/^\d{14}Z$/.test(text)) return undefined;
  return dateOf(Number(text.slice(0, 4)), text.slice(4));
}

/** The form that RFC 5280 §4.1.2.5 demands for this year. */
export function formatTime(date: Date): { text: string; generalized: boolean } {
  const text = `${date.toISOString().replace(/\.\d+Z$|[-:T]/g, "")}Z`;
  const year = date.getUTCFullYear();
  return year >= 1950 && year < 2050 ? { text: text.slice(2), generalized: false } : { text, generalized: true };
}

/** `rest` is MMDDHHMMSS. */
function dateOf(year: number, rest: string): Date | undefined {
  const month = twoDigits(rest, 0);
  const day = twoDigits(rest, 2);
  const minute = twoDigits(rest, 6);
  const second = twoDigits(rest, 8);
  if (minute > 59 || second > 59) return undefined;
  // By way of the same day 400 years later: Date.UTC takes years below 100 for some of the last century.
  const date = new Date(Date.UTC(year + 400, month - 1, day, twoDigits(rest, 4), minute, second));
  date.setUTCFullYear(date.getUTCFullYear() - 400);
  // 31 April has become 1 May, 24 o'clock the next day, month 0 the year before.
  return date.getUTCMonth() === month - 1 && date.getUTCDate() === day ? date : undefined;
}

/** Of a text that is known to have digits there. */
function twoDigits(text: string, at: number): number {
  return (text.charCodeAt(at) - 0x30) * 10 + text.charCodeAt(at + 1) - 0x30;
}
