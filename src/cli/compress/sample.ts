import type { Plan } from "../../methods/index.ts";
import { type DecoderConfig, decoderShapes } from "../../models/index.ts";
import type { Weight } from "../../nn/index.ts";
import { HostTensor, Rng } from "../../tensor/index.ts";

/** Rows of a sample. Whether a format holds a matrix depends on how long its rows are, not on their number. */
const ROWS = 16;

/**
 * Weights such as a plan makes, before any work is done: random numbers in place of the model's, a few rows of each
 * matrix, and of the layers the first.
 * @param plan of methods that need no calibration
 */
export async function sampleWeights(config: DecoderConfig, plan: Plan): Promise<Record<string, Weight | HostTensor>> {
  const rng = new Rng(0);
  const samples: Record<string, Weight | HostTensor> = {};
  for (const [name, [rows = 0, columns]] of decoderShapes(config)) {
    if (/^model\.layers\.[1-9]/.test(name)) continue;
    const method = columns === undefined ? null : plan(name);
    if (columns === undefined) samples[name] = HostTensor.zeros("f32", [rows]);
    else {
      const weight = rng.fork(name).normalTensor([Math.min(ROWS, rows), columns]);
      const job = { name, weight, inputs: null, rng: rng.fork(name), device: { threads: 1 }, note: () => {} };
      samples[name] = method ? await method.compress(job) : weight;
    }
  }
  return samples;
}
