import { fwht } from "../../../linalg/index.ts";
import { type DecoderConfig, decoderShapes, type Weights } from "../../../models/index.ts";
import { asWeight, Dense, TransformedWeight, type Weight } from "../../../nn/index.ts";
import { ArgumentError, HostTensor } from "../../../tensor/index.ts";
import { denseValues } from "../report.ts";
import { hadamardOrder, type RotationOptions, rotateResidual } from "../rotation.ts";
import { memorySource } from "../source.ts";

/** What a model was turned by: enough to turn another in the same way. */
export interface Rotation extends Required<RotationOptions> {
  /** Whether the inputs of the down projections are turned at run time. */
  readonly downProj: boolean;
}

export interface Decoder {
  readonly config: DecoderConfig;
  readonly weights: Weights;
}

/** A decoder whose residual stream is turned. */
export interface RotatedDecoder extends Decoder {
  readonly rotation: Rotation;
  /** What was done that was not asked for. */
  readonly notices: readonly string[];
}

/** What fine-tuning starts from, turned or not. */
export type MaybeRotated = Decoder & { readonly rotation?: Rotation };

/**
 * The same function with the residual stream turned by a random orthogonal matrix (R1), and the input of each down
 * projection turned at run time by Hadamard transforms of blocks, the largest power of two that divides its width (R4):
 * what RoLoRA fine-tunes (Huang et al. 2024, arXiv:2407.08044, section 3). Gains of norms become part of the matrices
 * behind them, and a head that shares the embedding's matrix gets its own.
 * @throws ArgumentError for a model that is turned already, norms that do not commute with a rotation (layer norms), and
 *   widths without the matrix asked for
 */
export async function rotateDecoder(
  model: MaybeRotated,
  { seed = 0, mode = "blocks", downProj = true }: RotationOptions & { readonly downProj?: boolean } = {},
): Promise<RotatedDecoder> {
  if (model.rotation)
    throw new ArgumentError(
      `the model is rotated already (seed ${model.rotation.seed}); rotate the one that it was made from`,
    );
  const source = rotateResidual(memorySource(model), { seed, mode });
  const weights: Record<string, Weight | HostTensor> = {};
  for (const name of decoderShapes(source.config).keys()) {
    const weight = await source.read(name);
    weights[name] = downProj && name.endsWith("down_proj.weight") ? await turnedOnline(asWeight(weight)) : weight;
  }
  const { tied, vocab, dim } = model.config;
  const notices = tied
    ? [`the head shared the embedding's matrix; it has its own now, of ${vocab * dim} parameters`]
    : [];
  return { config: source.config, weights, rotation: { seed, mode, downProj }, notices };
}

/** `W H` behind the transform of its input by `H`. */
async function turnedOnline(weight: Weight): Promise<Weight> {
  const { shape, data } = await denseValues(weight);
  const order = hadamardOrder(shape[1]!, [1]);
  const turned = Float32Array.from(data as Float32Array);
  fwht(turned, order);
  return new TransformedWeight(new Dense(new HostTensor("f32", shape, turned)), { hadamard: order });
}
