import { type DecoderConfig, decoderShapes, denseTensors, type Weights } from "../../../models/index.ts";
import { Dense, type Weight } from "../../../nn/index.ts";
import { ArgumentError, HostTensor } from "../../../tensor/index.ts";

/** What is left of a decoder, as increasing indices into what it had; absent: all. */
export interface Kept {
  readonly layers?: readonly number[];
  /** By layer of the whole model, equally many in each; those of layers that go are not looked at. */
  readonly neurons?: readonly (readonly number[])[];
  /** Of the residual stream: one set for the whole model. */
  readonly channels?: readonly number[];
  /**
   * How far each layer that is left sees back, as `DecoderConfig.window`: a number makes its attention slide, 0 takes it
   * away with its weights.
   */
  readonly window?: readonly (number | null)[];
}

export interface PrunedDecoder {
  readonly config: DecoderConfig;
  readonly weights: Readonly<Record<string, Weight | HostTensor>>;
}

/** Indices of the `count` largest of `scores`, increasing; of equal ones the first. @throws ArgumentError */
export function mostImportant(scores: ArrayLike<number>, count: number, what: string): number[] {
  if (!Number.isInteger(count) || count < 1 || count > scores.length)
    throw new ArgumentError(
      `cannot keep ${count} ${what} of ${scores.length}; give a number from 1 to ${scores.length}`,
    );
  return Array.from({ length: scores.length }, (_, i) => i)
    .sort((a, b) => scores[b]! - scores[a]! || a - b)
    .slice(0, count)
    .sort((a, b) => a - b);
}

/** Sizes of a smaller decoder; absent: as it is. */
export interface PrunedSize {
  readonly layers?: number;
  readonly ffn?: number;
  readonly dim?: number;
}

/**
 * The most important parts of a decoder, as many as `size` says, by scores from `structuredImportance`.
 * @throws ArgumentError for a size below one or above what there is, or without scores
 */
export function keepMostImportant(
  scores: {
    readonly layers?: ArrayLike<number>;
    readonly neurons?: readonly ArrayLike<number>[];
    readonly channels?: ArrayLike<number>;
  },
  { layers, ffn, dim }: PrunedSize,
): Kept {
  const scored = <T>(value: T | undefined, what: string): T => {
    if (value === undefined) throw new ArgumentError(`fewer ${what} need scores of ${what}`);
    return value;
  };
  return {
    ...(layers !== undefined && { layers: mostImportant(scored(scores.layers, "layers"), layers, "layers") }),
    ...(ffn !== undefined && {
      neurons: scored(scores.neurons, "neurons").map((layer) => mostImportant(layer, ffn, "neurons")),
    }),
    ...(dim !== undefined && { channels: mostImportant(scored(scores.channels, "channels"), dim, "channels") }),
  };
}

/**
 * A decoder of fewer layers, feed-forward neurons and residual channels, its weights slices of those given: a neuron goes
 * from gate, up and down alike, a channel from the embedding, every norm, every matrix that reads or writes the stream,
 * and the head. Heads stay but those of layers that lose their attention, and nothing is rescaled.
 * @throws ArgumentError for indices that are not increasing or out of range, layers of unequal numbers of neurons, and
 *   attention where there is none or none left; ModelError for weights that are not dense
 */
export function pruneDecoder(
  { config, weights }: { readonly config: DecoderConfig; readonly weights: Weights },
  kept: Kept,
): PrunedDecoder {
  const layers = kept.layers ?? range(config.layers);
  const channels = kept.channels ?? range(config.dim);
  checkIndices("layers", layers, config.layers);
  checkIndices("channels", channels, config.dim);
  const neurons = layers.map((layer) => kept.neurons?.[layer] ?? range(config.ffn));
  layers.forEach((layer, i) => {
    checkIndices(`neurons of layer ${layer}`, neurons[i]!, config.ffn);
    if (neurons[i]!.length !== neurons[0]!.length)
      throw new ArgumentError(
        `layer ${layers[0]} keeps ${neurons[0]!.length} neurons and layer ${layer} ${neurons[i]!.length}; all layers need equally many`,
      );
  });
  const smaller: DecoderConfig = {
    ...config,
    layers: layers.length,
    dim: channels.length,
    ffn: neurons[0]!.length,
    window: windowOf(config, layers, kept.window),
  };
  const dense = denseTensors(weights);
  const pruned = Array.from(decoderShapes(smaller).keys(), (name): [string, Weight | HostTensor] => {
    const [, index, rest] = /^model\.layers\.(\d+)(\..*)$/.exec(name) ?? [];
    const source = index === undefined ? name : `model.layers.${layers[Number(index)]!}${rest}`;
    const picks = { channels, neurons: neurons[Number(index ?? 0)]! };
    const axes = axesOf(name);
    const values = axes.reduce(
      (tensor, axis, i) => (axis === null ? tensor : taken(tensor, i, picks[axis])),
      dense.get(source)!,
    );
    return [name, values.shape.length === 2 ? new Dense(values) : values];
  });
  return { config: smaller, weights: Object.fromEntries(pruned) };
}

function windowOf(
  config: DecoderConfig,
  layers: readonly number[],
  wanted: readonly (number | null)[] = layers.map((layer) => config.window[layer]!),
): readonly (number | null)[] {
  if (wanted.length !== layers.length)
    throw new ArgumentError(`${wanted.length} kinds of attention were given for ${layers.length} layers`);
  if (wanted.every((size) => size === 0))
    throw new ArgumentError(`none of the ${layers.length} layers would have attention; at least one needs it`);
  layers.forEach((layer, i) => {
    if (wanted[i] !== 0 && config.window[layer] === 0)
      throw new ArgumentError(`layer ${layer} has no attention, so that layer ${i} of the smaller model can have none`);
  });
  return wanted;
}

type Axis = "channels" | "neurons" | null;

/** What the axes of a decoder's weight run over. */
function axesOf(name: string): readonly Axis[] {
  const [, matrix, kind] = /([a-z_]+)\.(weight|bias)$/.exec(name)!;
  switch (matrix) {
    case "embed_tokens":
    case "embed_positions":
    case "lm_head":
      return [null, "channels"];
    case "q_proj":
    case "k_proj":
    case "v_proj":
      return kind === "bias" ? [null] : [null, "channels"];
    case "o_proj":
      return ["channels", null];
    case "gate_proj":
    case "up_proj":
      return ["neurons", "channels"];
    case "down_proj":
      return ["channels", "neurons"];
    case "q_norm":
    case "k_norm":
      return [null];
    default:
      return ["channels"];
  }
}

const range = (count: number): number[] => Array.from({ length: count }, (_, i) => i);

function checkIndices(what: string, indices: readonly number[], count: number): void {
  if (indices.length === 0) throw new ArgumentError(`none of the ${count} ${what} would be kept`);
  const wrong = indices.findIndex(
    (v, i) => !Number.isInteger(v) || v < 0 || v >= count || (i > 0 && v <= indices[i - 1]!),
  );
  if (wrong >= 0)
    throw new ArgumentError(
      `the ${what} to keep must be increasing indices below ${count}; number ${wrong} of them is ${indices[wrong]}`,
    );
}

/** Entries of a vector, or rows or columns of a matrix; all of an axis that is not there. */
function taken(tensor: HostTensor, axis: number, indices: readonly number[]): HostTensor {
  const { shape, dtype } = tensor;
  if (axis >= shape.length) return tensor;
  const inner = shape.slice(axis + 1).reduce((a, b) => a * b, 1);
  const outer = shape.slice(0, axis).reduce((a, b) => a * b, 1);
  if (indices.length === shape[axis]) return tensor;
  const result = HostTensor.zeros(dtype, [...shape.slice(0, axis), indices.length, ...shape.slice(axis + 1)]);
  for (let o = 0; o < outer; o++)
    indices.forEach((index, i) => {
      const start = (o * shape[axis]! + index) * inner;
      result.data.set(tensor.data.subarray(start, start + inner) as never, (o * indices.length + i) * inner);
    });
  return result;
}
