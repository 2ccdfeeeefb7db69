import { asWeight, Dense, onesInit, type Weight } from "../../nn/index.ts";
import {
  add,
  asTensor,
  formatShape,
  HostTensor,
  isLeaf,
  type Leaf,
  type Rng,
  sameShape,
  type Tensor,
} from "../../tensor/index.ts";
import { ModelError } from "../errors.ts";
import type { DecoderConfig } from "./config.ts";

/** A model's weights under Hugging Face's names: matrices in any representation, norms and biases as plain vectors. */
export type Weights = Readonly<Record<string, Weight | Leaf>>;

/** Name and shape of every weight of the architecture, in the order of the forward pass. */
export function decoderShapes(config: DecoderConfig): Map<string, readonly number[]> {
  const { dim, ffn, heads, kvHeads, headDim } = config;
  const shapes = new Map<string, readonly number[]>([["model.embed_tokens.weight", [config.vocab, dim]]]);
  if (config.positions === "learned") shapes.set("model.embed_positions.weight", [config.maxPositions, dim]);
  const norm = (name: string): void => {
    shapes.set(`${name}.weight`, [dim]);
    if (config.norm === "layer") shapes.set(`${name}.bias`, [dim]);
  };
  for (let i = 0; i < config.layers; i++) {
    const put = (name: string, ...shape: number[]): void => {
      shapes.set(`model.layers.${i}.${name}`, shape);
    };
    const attends = config.window[i] !== 0;
    if (attends) {
      norm(`model.layers.${i}.input_layernorm`);
      for (const [name, out] of [
        ["q", heads * headDim],
        ["k", kvHeads * headDim],
        ["v", kvHeads * headDim],
      ] as const) {
        put(`self_attn.${name}_proj.weight`, out, dim);
        if (config.qkvBias) put(`self_attn.${name}_proj.bias`, out);
      }
      if (config.qkNorm) for (const name of ["q", "k"]) put(`self_attn.${name}_norm.weight`, headDim);
      put("self_attn.o_proj.weight", dim, heads * headDim);
      if (config.outputBias) put("self_attn.o_proj.bias", dim);
    }
    // With norms behind attention and feed-forward, this is the one behind attention.
    if (attends || !config.postNorms) norm(`model.layers.${i}.post_attention_layernorm`);
    if (config.postNorms) for (const name of ["pre", "post"]) put(`${name}_feedforward_layernorm.weight`, dim);
    for (const [name, out, width] of [
      ...(config.gated ? ([["gate", ffn, dim]] as const) : []),
      ["up", ffn, dim],
      ["down", dim, ffn],
    ] as const) {
      put(`mlp.${name}_proj.weight`, out, width);
      if (config.ffnBias) put(`mlp.${name}_proj.bias`, out);
    }
  }
  norm("model.norm");
  if (!config.tied) shapes.set("lm_head.weight", [config.vocab, dim]);
  return shapes;
}

/**
 * Checks that weights belong to a configuration.
 * @throws ModelError naming the first tensor that is missing, too many, or of another shape, with both shapes.
 */
export function checkWeights(config: DecoderConfig, weights: Weights): void {
  const shapes = decoderShapes(config);
  for (const [name, shape] of shapes) {
    const weight = weights[name];
    if (!weight)
      throw new ModelError(
        `the weights lack "${name}", which the configuration asks for with shape ${formatShape(shape)}`,
      );
    if (!sameShape(weight.shape, shape)) {
      throw new ModelError(
        `"${name}" has shape ${formatShape(weight.shape)}, but the configuration asks for ${formatShape(shape)}`,
      );
    }
  }
  const extra = Object.keys(weights).find((name) => !shapes.has(name));
  if (extra !== undefined)
    throw new ModelError(`the weights hold "${extra}", which the configuration of a ${config.type} has no place for`);
}

/** Random initial weights: matrices normal with deviation 0.02, those that write to the residual stream smaller with depth, gains 1. */
export function initDecoder(config: DecoderConfig, rng: Rng): Record<string, Weight | HostTensor> {
  const weights: Record<string, Weight | HostTensor> = {};
  for (const [name, shape] of decoderShapes(config)) {
    if (shape.length === 2) {
      const residual = /\.(o_proj|down_proj)\.weight$/.test(name);
      const std = residual ? 0.02 / Math.sqrt(2 * config.layers) : 0.02;
      weights[name] = new Dense(rng.fork(name).normalTensor(shape, { std }));
    } else if (name.endsWith(".bias") || config.normPlusOne) weights[name] = HostTensor.zeros("f32", shape);
    else weights[name] = onesInit(shape);
  }
  return weights;
}

/** Whether a weight is a matrix of a decoder's layer, by name. */
export const isLayerMatrix = (name: string): boolean => /^model\.layers\.\d+\..+_proj\.weight$/.test(name);

/** Looks weights up by name. */
export class WeightBag {
  readonly #weights: Weights;

  constructor(weights: Weights) {
    this.#weights = weights;
  }

  #find(name: string): Weight | Leaf {
    const weight = this.#weights[name];
    if (!weight) throw new ModelError(`the weights lack "${name}"`);
    return weight;
  }

  matrix(name: string): Weight {
    return asWeight(this.#find(name));
  }

  vector(name: string): Tensor {
    const weight = this.#find(name);
    if (!isLeaf(weight)) throw new ModelError(`"${name}" is a vector and cannot be represented as ${weight.kind}`);
    return asTensor(weight);
  }

  /** `x` through the matrix of a layer, plus its bias where it has one. */
  apply(layer: string, x: Tensor, bias: boolean): Tensor {
    const product = this.matrix(`${layer}.weight`).apply(x);
    return bias ? add(product, this.vector(`${layer}.bias`)) : product;
  }
}
