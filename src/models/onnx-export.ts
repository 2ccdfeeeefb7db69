import { HalfWeight, withPoints } from "../nn/index.ts";
import { fuseNorms, type Graph, lower } from "../onnx/index.ts";
import { type Device, targetOf, trace } from "../runtime/index.ts";
import {
  add,
  and,
  applyOp,
  asTensor,
  cast,
  dimOf,
  equal,
  greater,
  type HostTensor,
  iota,
  isFloat,
  isHostTensor,
  lessEqual,
  mapTree,
  spec,
  sub,
  type Tensor,
  unsqueeze,
  where,
} from "../tensor/index.ts";
import { attendingLayers, type DecoderConfig } from "./decoder/config.ts";
import { type AttendedContext, decode, headLogits } from "./decoder/decoder.ts";
import { checkWeights, type Weights } from "./decoder/weights.ts";

/** Names of dimensions, as programs that run such files look them up. */
const batch = "batch_size";
const fresh = "sequence_length";
const past = "past_sequence_length";

/** Keys and values of one layer, `[batch, kvHeads, positions, headDim]`. */
interface LayerHeads<T> {
  readonly key: T;
  readonly value: T;
}

type ByLayer<T> = Readonly<Record<number, T>>;

export interface DecoderGraphOptions {
  /** Element type of numbers between the layers, and of keys and values. Default `f32`. */
  readonly dtype?: "f32" | "f16";
  /** What the program is to run on: each has kernels that the others lack. Default `cpu`, which suits `wasm` too. */
  readonly device?: Device;
}

/**
 * The program of a decoder in the form in which transformers.js, and others that run exported models, expect it:
 * inputs `input_ids`, `attention_mask` (`[batch, past + new]`, 0 for padding), `position_ids` and
 * `past_key_values.N.key/value` of each layer N that has attention; outputs `logits` of all new tokens, in `f32`, and
 * `present.N.key/value`. Padding may lie anywhere, as long as positions are counted without it. Weights become constants, each in its own representation; the
 * floating-point parts of it are cast to `dtype`.
 * @throws ModelError when weights and configuration do not fit
 */
export function decoderGraph(
  config: DecoderConfig,
  weights: Weights,
  { dtype = "f32", device = "cpu" }: DecoderGraphOptions = {},
): Graph {
  checkWeights(config, weights);
  const typed = castWeights(weights, dtype);
  const rows = spec(dtype, [batch, config.kvHeads, past, config.headDim]);
  const attending = attendingLayers(config);
  const program = (ids: Tensor, mask: Tensor, positions: Tensor, cached: ByLayer<LayerHeads<Tensor>>) => {
    const present: Record<number, LayerHeads<Tensor>> = {};
    const seen = new Masks(ids, mask, cached[attending[0]!]!.key);
    const context: AttendedContext = {
      positions,
      attend(layer, q, k, v, options) {
        const { key, value } = cached[layer]!;
        const inputs = [q, k, v, seen.within(config.window[layer] ?? null), key, value];
        const heads = { q_num_heads: config.heads, kv_num_heads: config.kvHeads };
        const [mixed, keys, values] = applyOp("Attention", inputs, { ...heads, ...options }, 3);
        present[layer] = { key: keys!, value: values! };
        return mixed!;
      },
    };
    // Rows of packed tables come out in f32.
    const typedRows = { "model.embed": (x: Tensor): Tensor => cast(x, dtype) };
    const { hidden } = withPoints(typedRows, () => decode(config, typed, ids, context));
    return fuseNorms({ logits: cast(headLogits(config, typed, hidden), "f32"), present });
  };
  const tokens = spec("i64", [batch, fresh]);
  const layers = Object.fromEntries(attending.map((layer) => [layer, { key: rows, value: rows }]));
  const specs = [tokens, spec("i64", [batch, `${past}+${fresh}`]), tokens, layers];
  const names = ["input_ids", "attention_mask", "position_ids", "past_key_values"];
  return lower(trace(program, specs, names).graph, targetOf({ device }));
}

/** Which keys the new tokens see, as an addition to scores `[batch, 1, new, past + new]`; layers alike share one. */
class Masks {
  readonly #keys: Tensor;
  readonly #queries: Tensor;
  /** `bool`, of keys that are no padding and not later than the query. */
  readonly #seen: Tensor;
  readonly #cached: Tensor;
  readonly #made = new Map<number | null, Tensor>();

  constructor(ids: Tensor, mask: Tensor, cached: Tensor) {
    this.#cached = cached;
    this.#keys = iota(mask.shape[1]!, [mask]);
    this.#queries = unsqueeze(add(iota(ids.shape[1]!, [ids]), dimOf(cached, 2)), 1);
    this.#seen = and(lessEqual(this.#keys, this.#queries), unsqueeze(equal(mask, 1), [1, 2]));
  }

  /** Of keys less than `window` places back. */
  within(window: number | null): Tensor {
    let made = this.#made.get(window);
    if (!made) {
      const { dtype } = this.#cached;
      const near = window === null ? this.#seen : and(this.#seen, greater(this.#keys, sub(this.#queries, window)));
      const constant = (value: number): Tensor => asTensor(value, { dtype, shape: [] });
      // Finite, so that a place of padding, which sees nothing, gets some mixture and not NaN.
      made = where(near, constant(0), constant(dtype === "f16" ? -3e4 : -1e30));
      this.#made.set(window, made);
    }
    return made;
  }
}

/** Half-precision weights stay so: they are cast where they are used. */
function castWeights(weights: Weights, dtype: "f32" | "f16"): Weights {
  const isPart = (value: unknown): value is HostTensor | HalfWeight =>
    isHostTensor(value) || value instanceof HalfWeight;
  const change = (part: HostTensor | HalfWeight) =>
    part instanceof HalfWeight || !isFloat(part.dtype) ? part : part.cast(dtype);
  return mapTree(weights, isPart, change) as Weights;
}
