import { type DecoderConfig, decode, headLogits, type Weights } from "../../src/models/index.ts";
import { fuseNorms, type Graph, lower } from "../../src/onnx/index.ts";
import { trace } from "../../src/runtime/index.ts";
import { applyOp, cast, defineOp, dimOf, gather, ints, spec, sub, sum, type Tensor } from "../../src/tensor/index.ts";

/** onnxruntime's attention of exported models, which carries keys and values `[batch, kvHeads, positions, headDim]` on. */
const ATTENTION = "com.microsoft.GroupQueryAttention";

defineOp({
  name: ATTENTION,
  attrs: { num_heads: "int", kv_num_heads: "int", scale: "float" },
  arity: [7, 7],
  infer: ({ input }) => {
    const [q, past] = [input(0), input(3)];
    const [batch, heads, , width] = past.shape;
    const present = { dtype: past.dtype, shape: [batch!, heads!, "past+seq", width!] };
    return [q, present, present];
  },
});

interface Rows<T> {
  readonly key: T;
  readonly value: T;
}

/**
 * A decoder as transformers.js runs it fastest: attention with the kernel that its own exports use, logits of the last
 * token only, weights in whatever representation they have.
 */
export function transformersGraph(config: DecoderConfig, weights: Weights): Graph {
  const step = (ids: Tensor, mask: Tensor, positions: Tensor, past: readonly Rows<Tensor>[]) => {
    const present: Rows<Tensor>[] = [];
    const last = cast(sub(sum(mask, { axes: [1] }), 1), "i32");
    const total = cast(dimOf(mask, 1), "i32");
    const { hidden } = decode(config, weights, ids, {
      positions,
      attend(layer, q, k, v, { scale }) {
        const { key, value } = past[layer]!;
        const heads = { num_heads: config.heads, kv_num_heads: config.kvHeads };
        const inputs = [q, k, v, key, value, last, total];
        const [mixed, keys, values] = applyOp(ATTENTION, inputs, { ...heads, scale: scale! }, 3);
        present.push({ key: keys!, value: values! });
        return mixed!;
      },
    });
    return fuseNorms({ logits: headLogits(config, weights, gather(hidden, ints([-1]), 1)), present });
  };
  const tokens = spec("i64", [1, "seq"]);
  const rows = spec("f32", [1, config.kvHeads, "past", config.headDim]);
  const past = Array.from({ length: config.layers }, () => ({ key: rows, value: rows }));
  const names = ["input_ids", "attention_mask", "position_ids", "past_key_values"];
  return lower(trace(step, [tokens, spec("i64", [1, "past+seq"]), tokens, past], names).graph);
}
