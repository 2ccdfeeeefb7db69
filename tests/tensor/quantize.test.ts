import fc from "fast-check";
import { describe, expect, it } from "vitest";
import { compile } from "../../src/runtime/index.ts";
import {
  type DType,
  dequantize,
  grad,
  HostTensor,
  matmulPacked,
  op,
  quantize,
  Rng,
  ShapeError,
  sum,
} from "../../src/tensor/index.ts";
import { run } from "../support/run.ts";

const rng = new Rng(4);

/** Codes of a matrix `[n, k]` packed in blocks, with what they stand for. */
function packed(n: number, k: number, bits: 2 | 4 | 8, block: number, withZeros: boolean) {
  const blocks = Math.ceil(k / block);
  const codes = HostTensor.zeros("u8", [n, blocks, (block * bits) / 8]);
  const zeros = HostTensor.zeros("u8", [n, Math.ceil((blocks * bits) / 8)]);
  const scales = HostTensor.from(Array.from({ length: n * blocks }, () => rng.uniform(0.01, 0.1)));
  const values: number[][] = [];
  for (let i = 0; i < n; i++) {
    const row: number[] = [];
    for (let b = 0; b < blocks; b++) {
      const zero = withZeros ? rng.integer(2 ** bits) : 2 ** (bits - 1);
      const zeroByte = i * zeros.shape[1]! + Math.floor((b * bits) / 8);
      zeros.set(zeroByte, zeros.at(zeroByte) | (zero << ((b * bits) % 8)));
      for (let j = 0; j < block; j++) {
        const code = rng.integer(2 ** bits);
        const byte = (i * blocks + b) * ((block * bits) / 8) + Math.floor((j * bits) / 8);
        codes.set(byte, codes.at(byte) | (code << ((j * bits) % 8)));
        row.push((code - zero) * scales.at(i * blocks + b));
      }
    }
    values.push(row.slice(0, k));
  }
  return { weight: { codes, scales, bits, block, ...(withZeros && { zeroPoints: zeros }) }, values };
}

describe("matmulPacked", () => {
  it.each([
    [2, 16, false],
    [4, 32, false],
    [4, 16, true],
    [8, 16, false],
    [8, 32, true],
  ] as const)(
    "%i bits, blocks of %i, zero points %s: kernel, portable form and plain loops agree",
    async (bits, block, withZeros) => {
      const [n, k] = [5, 3 * block];
      const { weight, values } = packed(n, k, bits, block, withZeros);
      const x = rng.normalTensor([2, 3, k]);
      const want = Array.from({ length: 6 }, (_, r) =>
        values.map((row) => row.reduce((a, w, i) => a + w * x.at(r * k + i), 0)),
      ).flat();
      const build = (t: Parameters<typeof matmulPacked>[0]) => matmulPacked(t, weight, { exact: true });
      await using kernel = await compile((t) => build(t), [x], { threads: 1 });
      await using portable = await compile((t) => build(t), [x], { device: "wasm" });
      expect(kernel.graph.outputs[0]!.tensor.node.op).toBe("com.microsoft.MatMulNBits");
      for (const program of [kernel, portable]) {
        const y = await program(x);
        expect(y.shape).toEqual([2, 3, n]);
        for (const [i, v] of want.entries()) expect(y.at(i)).toBeCloseTo(v, 4);
      }
      // Rounding the activations to 8 bits costs about a hundredth.
      const [fast] = await run((t) => matmulPacked(t, weight), x);
      const size = Math.sqrt(want.reduce((a, v) => a + v * v, 0) / want.length);
      for (const [i, v] of want.entries()) expect(Math.abs(fast!.at(i) - v)).toBeLessThan(0.05 * size);
    },
  );

  it("sends a gradient to its input", async () => {
    const { weight, values } = packed(4, 32, 4, 16, false);
    const [g] = await run((t) => grad(sum(matmulPacked(t, weight, { exact: true })), t), rng.normalTensor([1, 32]));
    for (let i = 0; i < 32; i++)
      expect(g!.at(i)).toBeCloseTo(
        values.reduce((a, row) => a + row[i]!, 0),
        4,
      );
  });

  it("refuses parts that do not belong together", async () => {
    const { weight } = packed(4, 32, 4, 16, false);
    const x = rng.normalTensor([1, 48]);
    await expect(run((t) => matmulPacked(t, weight), x)).rejects.toThrow(
      "its packed weights must be [4, 3, 8], not [4, 2, 8]",
    );
    await expect(run((t) => matmulPacked(t, { ...weight, block: 24 }), x)).rejects.toThrow(
      "its block is a power of two from 16, not 24",
    );
    await expect(run((t) => matmulPacked(t, { ...weight, bits: 3 as never }), x)).rejects.toThrow(
      "it runs 2, 4 or 8 bits, not 3",
    );
    const short = { ...weight, scales: HostTensor.from([1]) };
    await expect(run((t) => matmulPacked(t, short), rng.normalTensor([1, 32]))).rejects.toThrow(
      "it needs 8 scales, not [1]",
    );
  });
});

describe("linear quantization", () => {
  it("goes there and back within half a step, per tensor, channel and block", async () => {
    await fc.assert(
      fc.asyncProperty(
        fc.constantFrom<DType>("i8", "u8"),
        fc.constantFrom("tensor", "axis", "block"),
        fc.integer({ min: 0, max: 1e6 }),
        async (dtype, how, seed) => {
          const own = new Rng(seed);
          const x = own.normalTensor([3, 8]);
          const shape = how === "tensor" ? [] : how === "axis" ? [3] : [3, 2];
          const scale = HostTensor.from(
            Array.from({ length: shape.reduce((a, b) => a * b, 1) }, () => own.uniform(0.05, 0.2)),
            { shape },
          );
          const zeroPoint = HostTensor.from(Array<number>(scale.size).fill(dtype === "u8" ? 128 : 3), { dtype, shape });
          const options = how === "block" ? { axis: 1, block: 4 } : { axis: 0 };
          const [q, y] = await run((t) => {
            const codes = quantize(t, scale, dtype, { zeroPoint, ...options });
            return [codes, dequantize(codes, scale, zeroPoint, options)];
          }, x);
          const [low, high] = dtype === "u8" ? [0, 255] : [-128, 127];
          for (let i = 0; i < x.size; i++) {
            const s = scale.at(how === "tensor" ? 0 : how === "axis" ? Math.floor(i / 8) : Math.floor(i / 4));
            const z = zeroPoint.at(0);
            const code = q!.at(i);
            if (code > low && code < high) expect(Math.abs(code - z - x.at(i) / s)).toBeLessThan(0.5001);
            expect(y!.at(i)).toBeCloseTo((code - z) * s, 5);
          }
        },
      ),
      { numRuns: 15, seed: 1 },
    );
  });

  it.each(["i4", "u4"] as const)("reads %s constants", async (dtype) => {
    const codes = HostTensor.zeros(dtype, [2, 4]);
    const values = dtype === "i4" ? [-8, -1, 0, 1, 2, 3, 7, -4] : [0, 1, 2, 3, 8, 9, 14, 15];
    for (const [i, v] of values.entries()) codes.set(i, v);
    const [y] = await run(() => dequantize(codes, HostTensor.from(0.5)), HostTensor.from(0));
    expect(y!.toArray()).toEqual(values.map((v) => v / 2));
  });

  it("the expansion equals the kernel, blocks included", async () => {
    const [codes, scale] = [
      HostTensor.from(
        Array.from({ length: 16 }, (_, i) => i - 8),
        { dtype: "i8", shape: [2, 8] },
      ),
      HostTensor.from([
        [0.5, 1],
        [2, 4],
      ]),
    ];
    const [kernel, g] = await run((s) => {
      const y = dequantize(codes, s, null, { axis: 1, block: 4 });
      return [y, grad(sum(op("Mul", [y, y])), s)];
    }, scale);
    const plain = codes.toArray().map((c, i) => c * scale.at(Math.floor(i / 4)));
    expect(kernel!.toArray()).toEqual(plain);
    const want = [0, 1, 2, 3].map((b) =>
      codes
        .toArray()
        .slice(4 * b, 4 * b + 4)
        .reduce((a, c) => a + 2 * c * c * scale.at(b), 0),
    );
    for (const [i, v] of want.entries()) expect(g!.at(i)).toBeCloseTo(v, 4);
  });

  it("refuses scales that do not fit", async () => {
    const x = HostTensor.zeros("i8", [2, 8]);
    await expect(run((t) => dequantize(t, HostTensor.from([1, 2, 3]), null, { axis: 0 }), x)).rejects.toThrow(
      ShapeError,
    );
    await expect(run((t) => dequantize(t, HostTensor.from([[1, 2, 3]]), null, { block: 4 }), x)).rejects.toThrow(
      "blocks of 4 along axis 1 of [2, 8] do not go with scales [1, 3]",
    );
  });
});
