import { type DecoderSource, denseValues, memorySource } from "../../../src/methods/index.ts";
import { type DecoderConfig, decoderLogits, decoderShapes, type Weights } from "../../../src/models/index.ts";
import { asWeight, type Weight } from "../../../src/nn/index.ts";
import { compile } from "../../../src/runtime/index.ts";
import { HostTensor, Rng, spec } from "../../../src/tensor/index.ts";
import { tinyModel } from "../../generate/models.ts";

/** All weights of a source. */
export async function readAll(source: DecoderSource): Promise<{ config: DecoderConfig; weights: Weights }> {
  const weights: Record<string, Weight | HostTensor> = {};
  for (const name of decoderShapes(source.config).keys()) weights[name] = await source.read(name);
  return { config: source.config, weights };
}

/** Logits of `ids i64 [batch, seq]`. */
export async function logits({ config, weights }: { config: DecoderConfig; weights: Weights }, ids: HostTensor) {
  await using program = await compile(
    (x) => decoderLogits(config, weights, x),
    [spec("i64", ids.shape as [number, number])],
    { threads: 1 },
  );
  return (await program(ids)).data as Float32Array;
}

/** The largest difference of a source's logits from a model's, relative to the root mean square of these. */
export async function difference(
  model: { config: DecoderConfig; weights: Weights },
  source: DecoderSource,
  ids: HostTensor,
): Promise<number> {
  const [expected, found] = [await logits(model, ids), await logits(await readAll(source), ids)];
  let [worst, energy] = [0, 0];
  for (const [i, v] of expected.entries()) {
    worst = Math.max(worst, Math.abs(found[i]! - v));
    energy += v * v;
  }
  return worst / Math.sqrt(energy / expected.length);
}

/** A small model whose embedding has two channels that are far larger than the rest. */
export async function outlierModel(changes: Record<string, unknown> = {}) {
  const { config, weights } = tinyModel(changes);
  const name = "model.embed_tokens.weight";
  const values = await denseValues(asWeight(weights[name]!));
  const large = (i: number): boolean => i % config.dim === 3 || i % config.dim === 9;
  const data = (values.data as Float32Array).map((v, i) => (large(i) ? 40 * v : v));
  const model = { config, weights: { ...weights, [name]: new HostTensor("f32", values.shape, data) } };
  return { ...model, source: memorySource(model) };
}

/** Scales from 1/8 to 8. */
export function randomScales(seed: number, width: number): Float32Array {
  const rng = new Rng(seed);
  return Float32Array.from({ length: width }, () => 8 ** rng.uniform(-1, 1));
}
