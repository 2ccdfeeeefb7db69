import { rowName } from "../../evaluate/index.ts";
import type { Setting } from "../system.ts";
import { auditOf, type Grids } from "./audit.ts";
import { type Curriculum, curriculum, type Student, trainStudent } from "./student.ts";

type Metrics = Record<string, number>;

/** Facts so few that the model has them by heart, where perplexity and facts should no longer part. */
export async function easyFacts(setting: Setting): Promise<Metrics> {
  const student = await trainStudent(setting, curriculum(50, 2));
  const grids: Grids = { magnitude: [{ sparsity: 0.2 }, { sparsity: 0.3 }], nearest: [{ bits: 4 }] };
  const { dense, rows } = await auditOf(setting, student, { size: {}, grids });
  const metrics: Metrics = { "easy facts, dense factoid": dense.scores["factoid"]!.value! };
  for (const row of rows) {
    metrics[`easy facts, ${rowName(row)}: factoid kept`] = 1 - row.scores["factoid"]!.drop!;
    metrics[`easy facts, ${rowName(row)}: rise of perplexity`] = row.perplexityRise;
  }
  return metrics;
}

/** What pruning by half keeps that has seen so many windows of text (Jaiswal et al. 2024, section 4.2). */
export async function calibrationCounts(setting: Setting, student: Student): Promise<Metrics> {
  const metrics: Metrics = {};
  const half = [{ sparsity: 0.5 }];
  for (const windows of [1, 4, 16, 64, 256]) {
    const { rows } = await auditOf(setting, student, { size: {}, grids: { wanda: half, sparsegpt: half }, windows });
    for (const row of rows) {
      metrics[`${rowName(row)}, ${windows} windows: factoid`] = row.scores["factoid"]!.mean!;
      metrics[`${rowName(row)}, ${windows} windows: rise of perplexity`] = row.perplexityRise;
    }
  }
  return metrics;
}

/**
 * A small dense model, and the large one pruned to as many entries in its layers' matrices, on the same facts.
 * @param plan of the large model
 */
export async function smallAndSparse(setting: Setting, student: Student, plan: Curriculum): Promise<Metrics> {
  const dim = (3 * plan.dim) / 4;
  const small = await trainStudent(setting, { ...plan, dim, ffn: 3 * dim });
  const sparsity = 1 - small.parameters / student.parameters;
  const { dense } = await auditOf(setting, small, { size: {}, grids: {} });
  const grid = [{ sparsity }];
  const grids = { magnitude: grid, wanda: grid, sparsegpt: grid };
  const { rows } = await auditOf(setting, student, { size: {}, grids });
  return {
    "small dense model: factoid": dense.scores["factoid"]!.value!,
    "small dense model: perplexity": dense.perplexity,
    ...Object.fromEntries(
      rows.flatMap((row) => [
        [`as many entries, ${rowName(row)}: factoid`, row.scores["factoid"]!.mean!],
        [`as many entries, ${rowName(row)}: perplexity`, row.perplexity],
      ]),
    ),
  };
}
