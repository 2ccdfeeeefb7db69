import fc from "fast-check";
import { describe, expect, test } from "vitest";
import { compile } from "../../src/runtime/index.ts";
import {
  type AttentionOptions,
  applyOp,
  attentionWeights,
  causalMask,
  concat,
  findOp,
  HostTensor,
  input,
  op,
  scaledDotProductAttention,
  spec,
  type Tensor,
} from "../../src/tensor/index.ts";
import { checkGradient } from "../support/gradcheck.ts";
import { expectClose, hostOf, wave } from "../support/numbers.ts";
import { run } from "../support/run.ts";

interface Setting {
  batch: number;
  kvHeads: number;
  group: number;
  seq: number;
  past: number;
  dim: number;
  valueDim: number;
}

const data = (s: Setting, dtype: "f32" | "f64" = "f64"): [HostTensor, HostTensor, HostTensor] => {
  const [heads, kvSeq] = [s.kvHeads * s.group, s.past + s.seq];
  return [
    hostOf([s.batch, heads, s.seq, s.dim], (i) => 2 * wave(i), dtype),
    hostOf([s.batch, s.kvHeads, kvSeq, s.dim], (i) => 2 * wave(i + 1000), dtype),
    hostOf([s.batch, s.kvHeads, kvSeq, s.valueDim], (i) => wave(i + 2000), dtype),
  ];
};

interface OracleOptions {
  scale?: number;
  softcap?: number;
  /** What is added to the score of query `i` and key `j`. */
  bias?: (b: number, h: number, i: number, j: number) => number;
}

/** Probabilities and results in plain loops. */
function oracle(
  s: Setting,
  [q, k, v]: readonly HostTensor[],
  options: OracleOptions = {},
): { weights: number[]; result: number[] } {
  const { scale = 1 / Math.sqrt(s.dim), softcap, bias = () => 0 } = options;
  const [heads, kvSeq] = [s.kvHeads * s.group, s.past + s.seq];
  const [weights, result]: number[][] = [[], []];
  for (let b = 0; b < s.batch; b++)
    for (let h = 0; h < heads; h++)
      for (let i = 0; i < s.seq; i++) {
        const kv = b * s.kvHeads + Math.floor(h / s.group);
        const scores = Array.from({ length: kvSeq }, (_, j) => {
          let dot = 0;
          for (let d = 0; d < s.dim; d++)
            dot += q!.at(((b * heads + h) * s.seq + i) * s.dim + d) * k!.at((kv * kvSeq + j) * s.dim + d);
          const score = dot * scale;
          return (softcap ? softcap * Math.tanh(score / softcap) : score) + bias(b, h, i, j);
        });
        const top = Math.max(...scores);
        const powers = scores.map((x) => Math.exp(x - top));
        const total = powers.reduce((x, y) => x + y, 0);
        weights!.push(...powers.map((p) => p / total));
        for (let d = 0; d < s.valueDim; d++) {
          let mixed = 0;
          for (let j = 0; j < kvSeq; j++) mixed += (powers[j]! / total) * v!.at((kv * kvSeq + j) * s.valueDim + d);
          result!.push(mixed);
        }
      }
  return { weights: weights!, result: result! };
}

const small = fc.integer({ min: 1, max: 3 });
const settings = fc.record({
  batch: fc.integer({ min: 1, max: 2 }),
  kvHeads: fc.integer({ min: 1, max: 2 }),
  group: small,
  seq: small,
  past: fc.nat(2),
  dim: small,
  valueDim: small,
});
const options = fc.record({
  causal: fc.boolean(),
  window: fc.option(fc.integer({ min: 1, max: 3 }), { nil: undefined }),
  scale: fc.option(fc.constantFrom(0.3, 1), { nil: undefined }),
  softcap: fc.option(fc.constantFrom(0.7, 3), { nil: undefined }),
  mask: fc.constantFrom("none", "bool", "float"),
  /** Which of `[batch, heads, seq, kvSeq]` the mask has; the others are 1 or missing. */
  axes: fc.tuple(fc.boolean(), fc.boolean(), fc.boolean(), fc.boolean()),
  leading: fc.boolean(),
});

const HIDDEN = -1e30;

/** Whether a query has all of its keys hidden. */
function anyBlind([batch, heads, seq, kvSeq]: number[], bias: NonNullable<OracleOptions["bias"]>): boolean {
  for (let b = 0; b < batch!; b++)
    for (let h = 0; h < heads!; h++)
      for (let i = 0; i < seq!; i++)
        if (Array.from({ length: kvSeq! }, (_, j) => bias(b, h, i, j)).every((x) => x <= HIDDEN)) return true;
  return false;
}

describe("scaledDotProductAttention", () => {
  test("agrees with plain loops, and its gradient with finite differences, under any mask and grouping", async () => {
    await fc.assert(
      fc.asyncProperty(settings, options, async (s, o) => {
        const [heads, kvSeq] = [s.kvHeads * s.group, s.past + s.seq];
        const full = [s.batch, heads, s.seq, kvSeq];
        let shape = full.map((d, axis) => (o.axes[axis] ? d : 1));
        while (!o.leading && shape[0] === 1) shape = shape.slice(1);
        const strides = shape.map((d, i) => (d === 1 ? 0 : shape.slice(i + 1).reduce((a, b) => a * b, 1)));
        const place = (...at: number[]): number =>
          strides.reduce((sofar, stride, i) => sofar + stride * at[at.length - shape.length + i]!, 0);
        const bool = hostOf(shape, (i) => (wave(i + 7) > -0.3 ? 1 : 0), "bool");
        const float = hostOf(shape, (i) => wave(i + 7));
        const window = o.causal ? o.window : undefined;
        const bias = (b: number, h: number, i: number, j: number): number => {
          const p = i + s.past;
          const order = o.causal && (j > p || (window !== undefined && j <= p - window)) ? HIDDEN : 0;
          const at = place(b, h, i, j);
          return order + (o.mask === "bool" ? (bool.at(at) ? 0 : HIDDEN) : o.mask === "float" ? float.at(at) : 0);
        };
        const given: AttentionOptions = {
          causal: o.causal,
          ...(window !== undefined && { window }),
          ...(o.scale !== undefined && { scale: o.scale }),
          ...(o.softcap !== undefined && { softcap: o.softcap }),
          ...(o.mask !== "none" && { mask: o.mask === "bool" ? bool : float }),
        };
        const inputs = data(s);
        const expected = oracle(s, inputs, {
          bias,
          ...(o.scale !== undefined && { scale: o.scale }),
          ...(o.softcap !== undefined && { softcap: o.softcap }),
        });
        const [result, weights] = await run(
          (q, k, v) => [scaledDotProductAttention(q, k, v, given), attentionWeights(q, k, given)],
          ...inputs,
        );
        expect(result!.shape).toEqual([s.batch, heads, s.seq, s.valueDim]);
        expect(weights!.shape).toEqual(full);
        // onnxruntime's Tanh is good to 1e-8 only, in double precision too.
        const tolerance = o.softcap === undefined ? 1e-10 : 1e-7;
        expectClose(result!.toArray(), expected.result, tolerance, "result");
        expectClose(weights!.toArray(), expected.weights, tolerance, "weights");
        const [narrow] = await run((q, k, v) => scaledDotProductAttention(q, k, v, given), ...data(s, "f32"));
        expectClose(narrow!.toArray(), expected.result, 1e-5, "f32");
        // What a query that sees nothing mixes is meaningless, and so is its gradient.
        if (anyBlind(full, bias)) return;
        if (o.mask === "float")
          await checkGradient(
            (q, k, v, mask) => scaledDotProductAttention(q, k, v, { ...given, mask }),
            [...inputs, float],
          );
        else await checkGradient((q, k, v) => scaledDotProductAttention(q, k, v, given), inputs);
      }),
      { numRuns: 30, seed: 3 },
    );
  });

  test("gives hidden keys exactly no weight, and a query that sees nothing finite numbers", async () => {
    const s = { batch: 1, kvHeads: 1, group: 2, seq: 3, past: 0, dim: 4, valueDim: 4 };
    const padding = HostTensor.from([[false, true, true]]);
    for (const dtype of ["f32", "f16"] as const) {
      const [q, k, v] = data(s, "f32");
      const [result, weights] = await run(
        (q, k, v) => {
          const [a, b, c] = [q, k, v].map((t) => op("Cast", [t], { to: dtype === "f16" ? 10 : 1 })) as [
            Tensor,
            Tensor,
            Tensor,
          ];
          const options = { causal: true, mask: padding };
          return [scaledDotProductAttention(a, b, c, options), attentionWeights(a, b, options)];
        },
        q,
        k,
        v,
      );
      expect(result!.toArray().every(Number.isFinite)).toBe(true);
      for (let h = 0; h < 2; h++) {
        const rows = weights!.toArray().slice(9 * h, 9 * h + 9);
        expect(rows.slice(3, 6)).toEqual([0, 1, 0]);
        expect(rows[6]).toBe(0);
        expect(rows[7]! + rows[8]!).toBeCloseTo(1, 2);
      }
    }
  });

  test("takes named dimensions, as decoding with a cache has them", async () => {
    const s = { batch: 2, kvHeads: 2, group: 2, seq: 3, past: 2, dim: 4, valueDim: 4 };
    const [q, k, v] = data(s, "f32");
    const part = (t: HostTensor, from: number, to: number): HostTensor =>
      hostOf(
        [2, 2, to - from, 4],
        (i) => t.at((Math.floor(i / (4 * (to - from))) * 5 + from + (Math.floor(i / 4) % (to - from))) * 4 + (i % 4)),
        "f32",
      );
    const program = await compile(
      (q, k, v, pastK, pastV, mask) => {
        const [keys, values] = [concat([pastK, k], 2), concat([pastV, v], 2)];
        expect(keys.shape).toEqual(["batch", 2, "seq+past", 4]);
        return {
          plain: scaledDotProductAttention(q, keys, values),
          causal: scaledDotProductAttention(q, keys, values, { causal: true, window: 2 }),
          masked: scaledDotProductAttention(q, keys, values, { causal: true, mask }),
          shared: scaledDotProductAttention(q, keys, values, {
            mask: causalMask("seq", keys.shape[2]!, { sources: [q, keys] }),
          }),
        };
      },
      [
        spec("f32", ["batch", 4, "seq", 4]),
        spec("f32", ["batch", 2, "seq", 4]),
        spec("f32", ["batch", 2, "seq", 4]),
        spec("f32", ["batch", 2, "past", 4]),
        spec("f32", ["batch", 2, "past", 4]),
        spec("bool", ["batch", 1, 1, "past+seq"]),
      ],
    );
    const mask = hostOf([2, 1, 1, 5], (i) => (i === 7 ? 0 : 1), "bool");
    const given = await program(q, part(k, 2, 5), part(v, 2, 5), part(k, 0, 2), part(v, 0, 2), mask);
    const order = (i: number, j: number): number => (j > i + 2 ? HIDDEN : 0);
    const expected = {
      plain: () => 0,
      causal: (_b: number, _h: number, i: number, j: number) => (j > i + 2 || j <= i ? HIDDEN : 0),
      masked: (b: number, _h: number, i: number, j: number) => order(i, j) + (mask.at(5 * b + j) ? 0 : HIDDEN),
      shared: (_b: number, _h: number, i: number, j: number) => order(i, j),
    };
    for (const key of ["plain", "causal", "masked", "shared"] as const)
      expectClose(given[key].toArray(), oracle(s, [q, k, v], { bias: expected[key] }).result, 1e-5, key);
    await program.dispose();
  });

  test("refuses what does not belong together, naming it", () => {
    const t = (shape: (number | string)[], dtype: "f32" | "f64" | "i64" = "f32") => input("t", { dtype, shape });
    const attend = (q: Tensor, k: Tensor, v: Tensor, o?: AttentionOptions) => () =>
      scaledDotProductAttention(q, k, v, o);
    const [q, k] = [t([2, 4, 3, 8]), t([2, 2, 5, 8])];
    expect(attend(t([2, 3, 3, 8]), k, k)).toThrow(
      /scaledDotProductAttention\(f32 \[2, 3, 3, 8\], f32 \[2, 2, 5, 8\], .*3 query heads do not share 2 key heads equally/,
    );
    expect(attend(t([2, 4, 3, 6]), k, k)).toThrow(/a query head has 6 numbers, a key head 8/);
    expect(attend(t([1, 4, 3, 8]), k, k)).toThrow(/queries have a batch of 1, keys one of 2/);
    expect(attend(t([4, 3, 8]), k, k)).toThrow(/must be \[batch, heads, seq, dim\], not \[4, 3, 8\]/);
    expect(attend(q, k, t([2, 2, 4, 8]))).toThrow(/values \[2, 2, 4, 8\] do not belong to keys \[2, 2, 5, 8\]/);
    expect(attend(q, t([2, 2, 5, 8], "f64"), k)).toThrow(/differ in element type \(f32 and f64\)/);
    expect(attend(t([2, 4, 3, 8], "i64"), k, k)).toThrow(/floating-point numbers, not i64/);
    expect(attend(t([2, 4, 6, 8]), k, k, { causal: true })).toThrow(/5 keys are fewer than 6 queries/);
    expect(attend(q, k, k, { mask: t([3, 4]) })).toThrow(/the mask \[3, 4\] does not broadcast to \[2, 4, 3, 5\]/);
    expect(attend(q, k, k, { mask: t([2, 2, 4, 3, 5]) })).toThrow(/does not broadcast/);
    expect(attend(q, k, k, { mask: t([3, 5], "i64") })).toThrow(
      /a mask is bool \(true: seen\) or floating-point, not i64/,
    );
    expect(attend(q, k, k, { window: 3 })).toThrow(/an attention window needs causal: true/);
    expect(attend(q, k, k, { causal: true, window: 0 })).toThrow(/a whole number from 1, not 0/);
    expect(attend(q, k, k, { softcap: 0 })).toThrow(/softcap must be positive, not 0/);
  });
});

describe("the standard's operation", () => {
  const cases: Record<
    string,
    { s: Setting; attrs?: Record<string, number>; mask?: HostTensor; past?: boolean; merged?: boolean }
  > = {
    plain: { s: { batch: 2, kvHeads: 2, group: 1, seq: 3, past: 2, dim: 4, valueDim: 4 } },
    "grouped, causal": {
      s: { batch: 2, kvHeads: 2, group: 2, seq: 3, past: 0, dim: 4, valueDim: 4 },
      attrs: { is_causal: 1 },
    },
    "causal, more keys than queries": {
      s: { batch: 1, kvHeads: 1, group: 1, seq: 2, past: 3, dim: 4, valueDim: 4 },
      attrs: { is_causal: 1 },
    },
    "causal with a cache": {
      s: { batch: 2, kvHeads: 1, group: 2, seq: 2, past: 3, dim: 4, valueDim: 4 },
      attrs: { is_causal: 1 },
      past: true,
    },
    "capped, scaled, masked": {
      s: { batch: 1, kvHeads: 2, group: 1, seq: 3, past: 1, dim: 4, valueDim: 2 },
      attrs: { softcap: 0.8, scale: 0.9 },
      mask: hostOf([3, 4], (i) => (i % 5 === 2 ? 0 : 1), "bool"),
    },
    "heads side by side": {
      s: { batch: 2, kvHeads: 2, group: 2, seq: 3, past: 0, dim: 4, valueDim: 4 },
      attrs: { q_num_heads: 4, kv_num_heads: 2, is_causal: 1 },
      mask: hostOf([3, 3], wave, "f32"),
      merged: true,
    },
  };

  const sideBySide = (t: HostTensor): HostTensor => {
    const [batch, heads, seq, dim] = t.shape as [number, number, number, number];
    return hostOf(
      [batch, seq, heads * dim],
      (i) => {
        const [d, h, s, b] = [
          i % dim,
          Math.floor(i / dim) % heads,
          Math.floor(i / (dim * heads)) % seq,
          Math.floor(i / (dim * heads * seq)),
        ];
        return t.at(((b * heads + h) * seq + s) * dim + d);
      },
      t.dtype,
    );
  };

  test.each(Object.entries(cases))(
    "%s: the kernel and its expansion agree",
    async (_name, { s, attrs = {}, mask, past, merged }) => {
      const whole = data(s, "f32");
      const count = past ? 3 : 1;
      const cut = (t: HostTensor, from: number, to: number): HostTensor => {
        const [batch, heads, seq, dim] = t.shape as [number, number, number, number];
        const rows = to - from;
        return hostOf(
          [batch, heads, rows, dim],
          (i) => t.at((Math.floor(i / (dim * rows)) * seq + from + (Math.floor(i / dim) % rows)) * dim + (i % dim)),
          "f32",
        );
      };
      const [q, k, v] = past
        ? [whole[0], cut(whole[1], s.past, s.past + s.seq), cut(whole[2], s.past, s.past + s.seq)]
        : whole;
      const cache = past ? [cut(whole[1], 0, s.past), cut(whole[2], 0, s.past)] : [];
      const inputs = [q, k, v].map((t) => (merged ? sideBySide(t!) : t!));
      const build = (tensors: Tensor[]): (Tensor | null)[] => [
        ...tensors.slice(0, 3),
        mask ? op("Constant", [], { value: mask }) : null,
        ...tensors.slice(3),
      ];
      const kernel = await run((...t) => applyOp("Attention", build(t), attrs, count), ...inputs, ...cache);
      const plain = await run((...t) => findOp("Attention")!.expand!(build(t), attrs, count), ...inputs, ...cache);
      kernel.forEach((t, i) => {
        expect(plain[i]!.shape).toEqual(t.shape);
        expectClose(plain[i]!.toArray(), t.toArray(), 1e-5, `output ${i}`);
      });
      if (past) {
        expect(kernel[1]!.toArray()).toEqual(whole[1].toArray());
        const order = (_b: number, _h: number, i: number, j: number): number => (j > i + s.past ? HIDDEN : 0);
        expectClose(kernel[0]!.toArray(), oracle(s, whole, { bias: order }).result, 1e-5);
      }
    },
  );

  test("is differentiated through its expansion", async () => {
    const s = { batch: 1, kvHeads: 1, group: 2, seq: 2, past: 0, dim: 2, valueDim: 2 };
    await checkGradient((q, k, v) => op("Attention", [q, k, v], { is_causal: 1 }), data(s));
  });

  test("refuses what it does not offer", () => {
    const t = (shape: number[]) => input("t", { dtype: "f32", shape });
    expect(() => op("Attention", [t([2, 3, 8]), t([2, 3, 8]), t([2, 3, 8])])).toThrow(
      /need q_num_heads and kv_num_heads/,
    );
    expect(() =>
      op("Attention", [t([2, 3, 8]), t([2, 3, 8]), t([2, 3, 8])], { q_num_heads: 3, kv_num_heads: 3 }),
    ).toThrow(/8 numbers do not make up 3 heads/);
    const x = t([2, 1, 3, 8]);
    expect(() => op("Attention", [x, x, x, null, x])).toThrow(/both or neither/);
    expect(() => applyOp("Attention", [x, x, x], {}, 4)).toThrow(/fourth output, the scores, is not supported/);
  });
});
