import * as T from "../../src/tensor/index.ts";
import { apart, type Family, flat, i64, of, trigonometric, x } from "./cases.ts";

const image = x([2, 4, 6, 6]);

const windows: Family = {
  name: "convolutions and pools",
  tolerance: 5e-5,
  cases: {
    conv: of((t, w, b) => T.conv(t, w, { bias: b, padding: 1 }), x([2, 3, 5, 5]), x([4, 3, 3, 3]), x([4])),
    "conv with strides": of((t, w) => T.conv(t, w, { stride: 2, padding: "same" }), image, x([3, 4, 3, 3])),
    "conv with holes": of((t, w) => T.conv(t, w, { dilation: 2 }), image, x([3, 4, 2, 2])),
    "conv in groups": of((t, w) => T.conv(t, w, { groups: 2, padding: 1 }), image, x([4, 2, 3, 3])),
    "conv in groups of five": of((t, w) => T.conv(t, w, { groups: 2 }), image, x([10, 2, 2, 2])),
    "conv of each channel": of((t, w) => T.conv(t, w, { groups: 4, padding: 1 }), image, x([4, 1, 3, 3])),
    "conv with many channels": of((t, w) => T.conv(t, w), x([1, 16, 3, 3]), x([5, 16, 1, 1])),
    "conv over one axis": of((t, w) => T.conv(t, w, { padding: "causal" }), x([2, 3, 7]), x([4, 3, 3])),
    "conv over three axes": of((t, w) => T.conv(t, w), x([1, 2, 3, 3, 3]), x([2, 2, 2, 2, 2])),
    convTranspose: of(
      (t, w, b) => T.convTranspose(t, w, { bias: b, stride: 2, outputPadding: 1, padding: 1 }),
      x([2, 3, 3, 3]),
      x([3, 2, 3, 3]),
      x([2]),
    ),
    "convTranspose in groups": of((t, w) => T.convTranspose(t, w, { groups: 2 }), x([1, 4, 3, 3]), x([4, 1, 2, 2])),
    "convTranspose over three axes": of((t, w) => T.convTranspose(t, w), x([1, 2, 2, 2, 2]), x([2, 2, 2, 2, 2])),
    maxPool: of((t) => T.maxPool(t, 2), apart([1, 2, 4, 4])),
    "maxPool overlapping": of((t) => T.maxPool(t, 3, { stride: 2, padding: 1 }), apart([1, 2, 5, 5])),
    averagePool: of((t) => [T.averagePool(t, 2), T.averagePool(t, 3, { stride: 1, padding: 1 })], image),
    "averagePool with its padding": of(
      (t) => T.averagePool(t, 3, { stride: 2, padding: 1, countPadding: true }),
      image,
    ),
    "averagePool with a rest": of((t) => T.averagePool(t, 4, { stride: 3, ceilMode: true }), image),
    "global pools": of((t) => [T.globalAveragePool(t), T.globalMaxPool(t)], apart([2, 3, 4, 4])),
  },
};

const resizing: Family = {
  name: "resizing",
  tolerance: 5e-5,
  cases: {
    nearest: of((t) => T.resize(t, { scale: 2, mode: "nearest" }), image),
    "nearest, shrinking": of(
      (t) => T.resize(t, { size: 4, mode: "nearest", coordinates: "asymmetric", rounding: "floor" }),
      image,
    ),
    linear: of((t) => [T.resize(t, { scale: 1.5 }), T.resize(t, { size: [3, 9] })], image),
    "linear between corners": of((t) => T.resize(t, { size: 9, coordinates: "align_corners" }), image),
    "linear without aliases": of((t) => T.resize(t, { size: 3, antialias: true }), image),
    cubic: of((t) => T.resize(t, { size: 9, mode: "cubic" }), image),
    "linear over one axis": of((t) => T.resize(t, { size: 7 }), x([1, 2, 4])),
    pixelShuffle: of((t) => [T.pixelShuffle(t, 2), T.pixelUnshuffle(t, 2)], image),
    "DepthToSpace of ONNX": of(
      (t) => [T.op("DepthToSpace", [t], { blocksize: 2 }), T.op("SpaceToDepth", [t], { blocksize: 3 })],
      image,
    ),
  },
};

const norms: Family = {
  name: "normalisation",
  tolerance: 1e-4,
  cases: {
    layerNorm: of((t, s, b) => T.layerNorm(t, s, b), x([2, 3, 8]), x([8]), x([8])),
    "layerNorm over two axes": of((t) => T.layerNorm(t, null, null, { axis: 1 }), x([2, 3, 8])),
    rmsNorm: of((t, s) => T.rmsNorm(t, s, { epsilon: 1e-6 }), x([2, 3, 8]), x([8])),
    "rmsNorm of a sum": of(
      (t, u, s) => {
        const [y, , , sum] = T.applyOp("com.microsoft.SkipSimplifiedLayerNormalization", [t!, u!, s!], {}, 4);
        return [y!, sum!];
      },
      x([2, 3, 8]),
      x([2, 3, 8]),
      x([8]),
    ),
    groupNorm: of((t, s, b) => T.groupNorm(t, 2, s, b), image, x([4]), x([4])),
    instanceNorm: of((t, s, b) => T.instanceNorm(t, s, b), image, x([4]), x([4])),
    batchNorm: of((t, s, b) => T.batchNorm(t, s, b).y, image, x([4]), x([4])),
    "batchNorm with known statistics": of(
      (t, s, b, m, v) => T.batchNorm(t, s, b, { statistics: { mean: m!, variance: v! } }).y,
      image,
      x([4]),
      x([4]),
      x([4]),
      x([4], 0.5, 2),
    ),
    lpNormalize: of((t) => [T.lpNormalize(t), T.lpNormalize(t, 0, 1)], apart([3, 4])),
  },
};

const heads = (count: number, seq: number) => x([2, count, seq, 8]);
const { cos, sin } = T.rotaryTable(10, 8);
const positions = i64([
  [0, 1, 2],
  [7, 8, 9],
]);

const attention: Family = {
  name: "attention",
  tolerance: 5e-5,
  cases: {
    full: of((q, k, v) => T.scaledDotProductAttention(q, k, v), heads(2, 3), heads(2, 5), heads(2, 5)),
    "causal in groups": of(
      (q, k, v) => T.scaledDotProductAttention(q, k, v, { causal: true }),
      heads(4, 5),
      heads(2, 5),
      heads(2, 5),
    ),
    "with a window": of(
      (q, k) => T.scaledDotProductAttention(q, k, k, { causal: true, window: 2 }),
      heads(2, 5),
      heads(2, 5),
    ),
    "with a cap and a mask": of(
      (q, k, m) => T.scaledDotProductAttention(q, k, k, { softcap: 2, scale: 0.5, mask: m }),
      heads(2, 3),
      heads(2, 3),
      x([3, 3]),
    ),
    weights: of((q, k) => T.attentionWeights(q, k, { causal: true }), heads(2, 4), heads(2, 4)),
    "Attention of ONNX": of(
      (q, k, v) => T.op("Attention", [q, k, v], { q_num_heads: 4, kv_num_heads: 2, is_causal: 1 }),
      x([2, 3, 32]),
      x([2, 3, 16]),
      x([2, 3, 16]),
    ),
    rotary: of((t) => T.rotary(t, cos, sin), heads(2, 5)),
    "rotary of neighbours": of((t) => T.rotary(t, cos, sin, { interleaved: true }), heads(2, 5)),
    "rotary of merged heads": of((t) => T.rotary(t, cos, sin, { heads: 2 }), x([2, 5, 16])),
    "rotary of a part": of((t) => T.rotary(t, cos, sin), x([1, 2, 3, 12])),
    "rotary at positions": of((t, p) => T.rotary(t, cos, sin, { positions: p }), heads(2, 3), positions),
    "RotaryEmbedding of ONNX": of(
      (t, p) => T.op("RotaryEmbedding", [t, T.asTensor(cos), T.asTensor(sin), p]),
      heads(2, 3),
      positions,
    ),
    "table of positions": { ...flat((p) => Object.values(T.rotaryTable(p, 8)), positions), ...trigonometric },
  },
};

export const layers: readonly Family[] = [windows, resizing, norms, attention];
