import { Paths } from "./anchors.ts";
import { compilePolicy, type TrustPolicy, type TrustRules } from "./policy.ts";

/** The policy in force. Replacing it is one pointer swap; whoever listens then judges the open connections again. */
export class Trust {
  readonly paths = new Paths();
  readonly #listeners = new Set<() => void>();
  #policy: TrustPolicy;

  /** @throws SuiteError if an entry names nobody */
  constructor(rules: TrustRules) {
    this.#policy = compilePolicy(rules);
    this.paths.use(rules.anchors);
  }

  get policy(): TrustPolicy {
    return this.#policy;
  }

  /** Puts other rules in force; on an error the old ones stay. */
  replace(rules: TrustRules): void {
    this.#policy = compilePolicy(rules);
    this.paths.use(rules.anchors);
    for (const listener of this.#listeners) listener();
  }

  onChange(listener: () => void): () => void {
    this.#listeners.add(listener);
    return () => this.#listeners.delete(listener);
  }
}
