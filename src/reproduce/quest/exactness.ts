import { questPack } from "../../methods/index.ts";
import { decoderLogits, type Weights } from "../../models/index.ts";
import {
  bestGaussianScale,
  evenLevels,
  FakeQuantized,
  gaussianError,
  gaussianScale,
  hadamard,
  levelsOf,
} from "../../nn/index.ts";
import { compile } from "../../runtime/index.ts";
import { type HostTensor, linear, Rng, type Tensor } from "../../tensor/index.ts";
import { tokenBatch } from "../../train/index.ts";
import type { Check, Setting } from "../system.ts";
import type { Bits, Run } from "./contest.ts";

/**
 * Whether the packed model computes what the trained one does, and each row has no more codes than its bits allow. An
 * input that lies within the rounding of single precision of the middle between two levels may go to either, and what
 * follows it in its window is then off by more; so it is the median of windows that counts.
 */
export async function packedAsTrained(
  { log }: Setting,
  { start: { config, heldOut }, weights }: Pick<Run, "start" | "weights">,
  bits: Bits,
): Promise<Check[]> {
  const [windows, length] = [15, 16];
  const { ids } = tokenBatch(
    heldOut,
    Array.from({ length: windows }, (_, i) => i * length),
    length,
  );
  const logits = async (model: Weights): Promise<Float32Array> => {
    await using program = await compile((x) => decoderLogits(config, model, x), [ids]);
    return (await program(ids)).data as Float32Array;
  };
  const [trained, packed] = [await logits(weights), await logits(await questPack(weights))];
  const largest = new Float64Array(windows);
  const entries = trained.length / windows;
  for (const [i, value] of trained.entries()) {
    const window = Math.floor(i / entries);
    largest[window] = Math.max(largest[window]!, Math.abs(value - packed[i]!));
  }
  const apart = largest.filter((off) => off > 1e-3).length;
  log(`W${bits}A${bits}, packed: ${apart} of ${windows} windows with an input on the other side of a middle`);
  const median = largest.sort()[windows >> 1]!;
  const [codes, most] = [await mostCodes(weights), 2 ** bits];
  return [
    {
      what: `${bits} bits, packed logits' largest change (median window), and 1e-3`,
      ours: median,
      baseline: 1e-3,
      holds: median <= 1e-3,
    },
    {
      what: `${bits} bits, most codes of a row, and those of its bits`,
      ours: codes,
      baseline: most,
      holds: codes <= most,
    },
  ];
}

/** The most different values that any row of a matrix has. */
async function mostCodes(weights: Weights): Promise<number> {
  let most = 0;
  for (const weight of Object.values(weights)) {
    if (!(weight instanceof FakeQuantized)) continue;
    await using program = await compile(() => weight.rounded(), []);
    const { data, shape } = await program();
    const width = shape[1]!;
    for (let from = 0; from < data.length; from += width)
      most = Math.max(most, new Set((data as Float32Array).subarray(from, from + width)).size);
  }
  return most;
}

/** What has to be true of the parts. */
export async function mathematics({ seed }: Setting): Promise<Check[]> {
  const ratios = ([1, 2, 3, 4] as const).map((bits) => {
    const levels = evenLevels(levelsOf(bits));
    return gaussianError(levels, gaussianScale(bits)) / gaussianError(levels, bestGaussianScale(levels));
  });
  const rng = new Rng(seed).fork("turned product");
  const [x, w] = [rng.normalTensor([32, 384]), rng.normalTensor([64, 384])];
  await using program = await compile(
    (a: Tensor, b: Tensor) => [linear(a, b), linear(hadamard(a, 128), hadamard(b, 128))],
    [x, w],
  );
  const [plain, turned] = (await program(x, w)).map((t: HostTensor) => t.data as Float32Array);
  const energy = (values: Float32Array): number => Math.sqrt(values.reduce((sum, v) => sum + v * v, 0));
  const off = energy(plain!.map((v, i) => v - turned![i]!)) / energy(plain!);
  const worst = Math.max(...ratios);
  return [
    { what: "error of the Gaussian grid, in best ones, and 1.01", ours: worst, baseline: 1.01, holds: worst <= 1.01 },
    { what: "relative error of the turned product, and 1e-4", ours: off, baseline: 1e-4, holds: off <= 1e-4 },
  ];
}
