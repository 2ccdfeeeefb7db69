import type { LogEntry } from "./trainer.ts";

export interface ProgressOptions {
  readonly steps: number;
  /** Tokens (or examples) in a step; when given, the rate is shown in them. */
  readonly perStep?: { readonly count: number; readonly unit: string };
}

/** Turns log entries into lines for a terminal: step, loss, rate and the time that is left. */
export class Progress {
  readonly #options: ProgressOptions;
  #first: { step: number; seconds: number } | undefined;

  constructor(options: ProgressOptions) {
    this.#options = options;
  }

  line(entry: LogEntry): string {
    const { steps, perStep } = this.#options;
    const numbers = Object.entries(entry.values).map(([name, value]) => `${name} ${format(value)}`);
    if (entry.kind === "evaluate") return `step ${entry.step}/${steps}  evaluation: ${numbers.join("  ")}`;
    this.#first ??= { step: entry.step - 1, seconds: 0 };
    const rate = (entry.step - this.#first.step) / Math.max(1e-9, entry.seconds);
    const speed = perStep ? `${format(rate * perStep.count)} ${perStep.unit}/s` : `${format(rate)} steps/s`;
    return `step ${entry.step}/${steps}  ${numbers.join("  ")}  ${speed}  ${duration((steps - entry.step) / rate)} left`;
  }
}

function format(value: number): string {
  return Math.abs(value) >= 1000 ? value.toFixed(0) : value.toPrecision(4).replace(/\.?0+(?=$|e)/, "");
}

/** Seconds as `1 h 02 min`, `3 min 20 s` or `12 s`. */
export function duration(seconds: number): string {
  if (!Number.isFinite(seconds)) return "unknown time";
  const whole = Math.max(0, Math.round(seconds));
  const [hours, minutes] = [Math.floor(whole / 3600), Math.floor(whole / 60) % 60];
  if (hours > 0) return `${hours} h ${String(minutes).padStart(2, "0")} min`;
  return minutes > 0 ? `${minutes} min ${String(whole % 60).padStart(2, "0")} s` : `${whole} s`;
}
