import { type KickReport, type KickSetting, kick, kickCompressors, rowName } from "../../evaluate/index.ts";
import { Rng } from "../../tensor/index.ts";
import type { Setting } from "../system.ts";
import { type ExamSize, examOf } from "./exam.ts";
import type { Student } from "./student.ts";

/** Tokens of a window of text, to calibrate on and to measure perplexity on. */
export const WINDOW = 48;

/** Settings of each compressor, by its name. */
export type Grids = Readonly<Record<string, readonly KickSetting[]>>;

export const pruning = ["magnitude", "wanda", "sparsegpt"] as const;

/** Pruning by shares of the weights and by a pattern, and rounding to some bits. */
export function gridsOf(shares: readonly number[], nearest: readonly number[], gptq: readonly number[] = []): Grids {
  const pruned: KickSetting[] = [...shares.map((sparsity) => ({ sparsity })), { pattern: "2:4" }];
  const rounded = (bits: readonly number[]): KickSetting[] => bits.map((count) => ({ bits: count }));
  return {
    ...Object.fromEntries(pruning.map((name) => [name, pruned])),
    ...{ nearest: rounded(nearest), gptq: rounded(gptq) },
  };
}

export interface AuditOptions {
  readonly size: Partial<ExamSize>;
  readonly grids: Grids;
  /** Calibration seeds. Default 1. */
  readonly runs?: number;
  /** Windows to calibrate on. Default 128. */
  readonly windows?: number;
  /** Tokens of perplexity. Default 10,000. */
  readonly tokens?: number;
}

/** Asks a student and compressed versions of it for all facts of its world and for what `size` has of the other tasks. */
export async function auditOf(setting: Setting, student: Student, options: AuditOptions): Promise<KickReport> {
  const { seed, signal, log } = setting;
  const { config, weights, world, training, heldOut } = student;
  const { size, grids, runs = 1, windows = 128, tokens = 10_000 } = options;
  const all = kickCompressors();
  const report = await kick(
    { config, weights, tokenizer: world.tokenizer },
    {
      ...{ runs, seed, signal },
      tasks: examOf(world, size, new Rng(seed).fork("exam")),
      compressors: Object.entries(grids).map(([name, grid]) => ({ compressor: all[name]!, grid })),
      calibration: { tokens: training, count: windows, length: WINDOW },
      text: { tokens: heldOut.slice(0, tokens), window: WINDOW },
    },
  );
  for (const row of report.rows) {
    const kept = Object.entries(row.scores)
      .filter(([key, { drop }]) => drop !== null && (key === "factoid" || key === "icrqa-open"))
      .map(([key, { drop }]) => `, ${key} ${(1 - drop!).toFixed(3)}`);
    log(`${rowName(row)}: perplexity ${(1 + row.perplexityRise).toFixed(3)} of the dense model's${kept.join("")}`);
  }
  return report;
}
