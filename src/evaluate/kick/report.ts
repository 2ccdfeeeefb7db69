import { type KickSetting, settingName } from "./compressors.ts";
import type { TaskScore } from "./task.ts";

/** A score of a compressed model, over all its calibration seeds. */
export interface RowScore {
  /** Null where no item has a value. */
  readonly mean: number | null;
  /** Deviation between calibration seeds; 0 where there is one. */
  readonly std: number;
  /** Of the mean, drawing items. */
  readonly ci95: readonly [low: number, high: number] | null;
  /** Share of the dense model's score that is lost; null where that is 0 or there is none. */
  readonly drop: number | null;
  /** Whether no more than `eps` is lost. */
  readonly matching: boolean;
  /** Items without a value, of all seeds. */
  readonly excluded: number;
  readonly groups: TaskScore["groups"];
}

/** A method at a setting. */
export interface KickRow {
  readonly method: string;
  readonly setting: KickSetting;
  /** Share of zeros among the compressed matrices' entries, as found there. */
  readonly achievedSparsity: number;
  /** Of the compressed matrices, scales and other overhead included. */
  readonly bitsPerWeight: number;
  readonly perplexity: number;
  /** Deviation between calibration seeds. */
  readonly perplexityStd: number;
  /** `perplexity / dense perplexity - 1` */
  readonly perplexityRise: number;
  readonly runs: number;
  readonly scores: Readonly<Record<string, RowScore>>;
}

export interface KickReport {
  readonly eps: number;
  readonly dense: { readonly perplexity: number; readonly scores: Readonly<Record<string, TaskScore>> };
  readonly rows: readonly KickRow[];
  /** By method and score: the largest sparsity up to which it always matches; null where the least does not. */
  readonly maxMatching: Readonly<Record<string, Readonly<Record<string, number | null>>>>;
  readonly disagreements: readonly Disagreement[];
  readonly warnings: readonly string[];
}

/** Two compressed models that perplexity ranks one way and a task the other. */
export interface Disagreement {
  readonly score: string;
  /** Index of the row with the lower perplexity, and of the one with the better score. */
  readonly perplexity: number;
  readonly better: number;
}

/** Share of a dense score that is lost, or null where the dense model has none. */
export function dropOf(dense: number | null, compressed: number | null): number | null {
  return dense === null || compressed === null || dense === 0 ? null : (dense - compressed) / dense;
}

/**
 * The largest sparsity of each method up to which a score matches at every unstructured setting, by method and score.
 * Patterns and bits are left out: they are no ratios of one scale.
 */
export function maxMatchingOf(rows: readonly KickRow[]): KickReport["maxMatching"] {
  const result: Record<string, Record<string, number | null>> = {};
  for (const method of new Set(rows.map((row) => row.method))) {
    const own = rows
      .filter((row) => row.method === method && isUnstructured(row.setting))
      .sort((a, b) => a.setting.sparsity! - b.setting.sparsity!);
    if (own.length === 0) continue;
    result[method] = Object.fromEntries(
      Object.keys(own[0]!.scores).map((key) => {
        const failed = own.findIndex((row) => !row.scores[key]!.matching);
        const last = failed < 0 ? own.at(-1) : own[failed - 1];
        return [key, last ? last.setting.sparsity! : null];
      }),
    );
  }
  return result;
}

/** Whether a setting is a share of all weights, wherever they are. */
export function isUnstructured({ sparsity, pattern = "unstructured", bits }: KickSetting): boolean {
  return bits === undefined && sparsity !== undefined && pattern === "unstructured";
}

/**
 * Pairs of compressed models of different methods where perplexity prefers one and a task the other, beyond doubt: the
 * intervals of their scores do not overlap. For each score the pairs with the largest difference come first.
 * @param most pairs of each score
 */
export function disagreementsOf(rows: readonly KickRow[], most = 5): Disagreement[] {
  const keys = Object.keys(rows[0]?.scores ?? {});
  return keys.flatMap((score) => {
    const found: (Disagreement & { readonly by: number })[] = [];
    rows.forEach((low, perplexity) => {
      rows.forEach((high, better) => {
        if (low.method === high.method || low.perplexity >= high.perplexity) return;
        const [a, b] = [low.scores[score]!, high.scores[score]!];
        if (a.ci95 && b.ci95 && a.ci95[1] < b.ci95[0]) found.push({ score, perplexity, better, by: b.mean! - a.mean! });
      });
    });
    found.sort((x, y) => y.by - x.by);
    return found.slice(0, most).map(({ by: _, ...pair }) => pair);
  });
}

/** `wanda at 30 %` */
export function rowName({ method, setting }: KickRow): string {
  return `${method} at ${settingName(setting)}`;
}

/** What a task and perplexity say of two models, in a sentence each. */
export function disagreementLines({ rows, disagreements: found }: KickReport): string[] {
  return found.map(({ score, perplexity, better }) => {
    const [low, high] = [rows[perplexity]!, rows[better]!];
    return `${rowName(low)} has the lower perplexity (${number(low.perplexity)} against ${number(high.perplexity)} of ${rowName(high)}), but the worse ${score} (${number(low.scores[score]!.mean!)} against ${number(high.scores[score]!.mean!)})`;
  });
}

const number = (value: number): string => String(+value.toPrecision(3));
