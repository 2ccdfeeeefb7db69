import type { Finding, Setting, System } from "./system.ts";

/** What `pare reproduce` prints under `--json`. */
export interface Verdict extends Finding {
  readonly system: string;
  readonly claim: string;
  readonly seed: number;
  readonly full: boolean;
  readonly bar: string;
  /** Whether all checks hold. */
  readonly holds: boolean;
  readonly seconds: number;
}

/** Runs a system's experiment. @throws ArgumentError of the experiment; the signal's reason when stopped */
export async function reproduce(id: string, system: System, setting: Setting): Promise<Verdict> {
  const began = performance.now();
  const finding = await system.experiment(setting);
  setting.signal.throwIfAborted();
  const { claim, bar } = system;
  const { seed, full } = setting;
  const { checks } = finding;
  // An experiment that compares nothing shows nothing.
  const holds = checks.length > 0 && checks.every((check) => check.holds);
  return { system: id, claim, seed, full, bar, holds, seconds: (performance.now() - began) / 1000, ...finding };
}
