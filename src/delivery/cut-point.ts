/**
 * Where a crash test may end the process: right after the step that the name tells. Closed, so that one test can assert that
 * every name was reached.
 */
export const CUT_POINTS = [
  "content.written",
  "content.synced",
  "content.renamed",
  "outbox.content-synced",
  "outbox.accepted",
  "outbox.sealed",
  "outbox.part-acknowledged",
  "outbox.sent",
  "outbox.recorded",
  "inbox.opened",
  "inbox.content-synced",
  "inbox.committed",
  "inbox.part-opened",
  "inbox.part-recorded",
  "inbox.manifest-committed",
  "inbox.object-noted",
] as const;

export type CutPoint = (typeof CUT_POINTS)[number];

/** Called when a cut point is passed. In production it does nothing. */
export type Cut = (point: CutPoint) => void;

export const noCut: Cut = () => undefined;
