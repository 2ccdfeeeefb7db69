import fc from "fast-check";
import { describe, expect, test } from "vitest";
import {
  compressDecoder,
  denseValues,
  type GptqOptions,
  gptq,
  type MatrixJob,
  memorySource,
  nearest,
  planFor,
  weightErrors,
} from "../../../src/methods/index.ts";
import { type BlockFormat, BlockGrid, type BlockWeight, blockGrid } from "../../../src/nn/index.ts";
import { HostTensor } from "../../../src/tensor/index.ts";
import { tinyModel } from "../../generate/models.ts";
import { inverse, job } from "./jobs.ts";
import { randomWindows } from "./methods.ts";

const device = { threads: 1 };

/**
 * The equations of the paper one column at a time (Frantar et al. 2023, equations 2 and 3): no batches, no Cholesky
 * factor, the inverse of what is left of the Hessian by elimination of the rounded column.
 */
function plainGptq({ weight, inputs }: MatrixJob, options: GptqOptions): Float64Array {
  const [out, width] = weight.shape as [number, number];
  const gram = (i: number, j: number): number => inputs!.gram.at(i * width + j);
  const diagonal = Array.from({ length: width }, (_, i) => gram(i, i));
  const mean = diagonal.reduce((a, b) => a + b) / width;
  const order = diagonal.map((_, i) => i);
  if (options.activationOrder) order.sort((a, b) => diagonal[b]! - diagonal[a]! || a - b);
  let left = inverse(order.map((i) => order.map((j) => gram(i, j) + (i === j ? (options.damping ?? 0.01) * mean : 0))));
  const w = Float64Array.from(weight.data as Float32Array);
  const grid = options.activationOrder ? blockGrid(weight, options) : new BlockGrid([out, width], options);
  const rounded = new Float64Array(w.length);
  order.forEach((column, i) => {
    for (let r = 0; r < out; r++) {
      const at = r * width + column;
      if (!options.activationOrder && column % grid.block === 0) grid.fit(Float32Array.from(w), r, column / grid.block);
      const index = r * grid.blocks + Math.floor(column / grid.block);
      rounded[at] = grid.value(grid.code(w[at]!, index), index);
      const error = (w[at]! - rounded[at]!) / left[i]![i]!;
      order.forEach((other, j) => {
        if (j > i) w[r * width + other]! -= error * left[i]![j]!;
      });
    }
    const pivot = left[i]!;
    left = left.map((row, j) => (j === i ? row : row.map((v, k) => v - (row[i]! * pivot[k]!) / pivot[i]!)));
  });
  return rounded;
}

const error = async ({ weight, inputs }: MatrixJob, compressed: BlockWeight): Promise<number> =>
  (await weightErrors(weight, compressed, inputs!.gram, device)).outputError!;

describe("GPTQ", () => {
  // Symmetric grids that are fitted on the way put a block's extreme halfway between two codes, where the last bit of
  // arithmetic decides; all others are compared.
  const settings = fc
    .record({
      format: fc.constantFrom<BlockFormat>("int4", "int3", "int2", "ternary"),
      block: fc.constantFrom<number | "channel">(16, 48, "channel"),
      activationOrder: fc.boolean(),
      search: fc.boolean(),
      symmetric: fc.boolean(),
    })
    .map(({ symmetric, ...rest }): GptqOptions => {
      const isStatic = rest.activationOrder || rest.block === "channel" || rest.format === "ternary";
      return { ...rest, symmetric: rest.format === "ternary" || (symmetric && isStatic) };
    });

  test("gives what its equations give one column at a time", async () => {
    await fc.assert(
      fc.asyncProperty(settings, fc.integer({ min: 1, max: 1e6 }), async (options, seed) => {
        const work = job(seed, 5, 72, 100);
        const values = await denseValues(await gptq(options).compress(work), device);
        const expected = plainGptq(work, options);
        expect(expected.findIndex((v, k) => !(Math.abs(values.at(k) - v) < 1e-4))).toBe(-1);
      }),
      { seed: 3, numRuns: 20 },
    );
  }, 120_000);

  test.each([
    ["in plain loops", 7],
    ["on onnxruntime", 700],
  ])(
    "gives the same across batches whose products are taken %s",
    async (_how, out) => {
      const work = job(11, out, 160, 200);
      for (const settings of [
        { format: "int4", block: 16, symmetric: false },
        { format: "int3", block: 48, symmetric: false },
        { format: "int2", block: 144, symmetric: false },
        { format: "int4", block: 32, activationOrder: true },
      ] as const) {
        const values = await denseValues(await gptq(settings).compress(work), device);
        const few = {
          ...work,
          weight: new HostTensor("f32", [7, 160], (work.weight.data as Float32Array).slice(0, 7 * 160)),
        };
        const expected = plainGptq(few, settings);
        const off = expected.map((v, k) => Math.abs(values.at(k) - v));
        expect(
          off.findIndex((v) => !(v < 1e-4)),
          JSON.stringify(settings),
        ).toBe(-1);
      }
    },
    120_000,
  );

  test("loses less of the output than rounding to nearest, whatever the seed", async () => {
    await fc.assert(
      fc.asyncProperty(
        fc.constantFrom<BlockFormat>("int4", "int3", "int2"),
        fc.boolean(),
        fc.boolean(),
        fc.integer({ min: 1, max: 1e6 }),
        async (format, activationOrder, symmetric, seed) => {
          const work = job(seed, 12, 64, 160);
          const [plain, tuned] = [
            nearest({ format, block: 32, symmetric }),
            gptq({ format, block: 32, symmetric, activationOrder }),
          ];
          expect(await error(work, (await tuned.compress(work)) as BlockWeight)).toBeLessThan(
            await error(work, (await plain.compress(work)) as BlockWeight),
          );
        },
      ),
      { seed: 4, numRuns: 24 },
    );
  }, 120_000);

  test("with inputs that have nothing to do with each other, rounds to nearest", async () => {
    const work = job(2, 6, 32, 40);
    const diagonal = HostTensor.zeros("f32", [32, 32]);
    for (let i = 0; i < 32; i++) diagonal.set(i * 33, 1 + i);
    const apart = { ...work, inputs: { ...work.inputs, gram: diagonal } };
    for (const gram of [diagonal, HostTensor.zeros("f32", [32, 32])]) {
      const tuned = await gptq({ format: "int4", block: 16 }).compress({ ...apart, inputs: { ...work.inputs, gram } });
      const plain = await nearest({ format: "int4", block: 16 }).compress(work);
      expect((await denseValues(tuned)).data).toEqual((await denseValues(plain)).data);
    }
  });

  test("leaves what meets dead channels to rounding, and spoils nothing else", async () => {
    const work = job(9, 6, 40, 60);
    const gram = work.inputs.gram.clone();
    const dead = [3, 4, 17, 39];
    for (const d of dead) for (let i = 0; i < 40; i++) for (const k of [d * 40 + i, i * 40 + d]) gram.set(k, 0);
    const silenced = { ...work, inputs: { ...work.inputs, gram } };
    for (const activationOrder of [false, true]) {
      const settings: GptqOptions = { format: "int3", block: 16, activationOrder };
      const values = await denseValues(await gptq(settings).compress(silenced));
      expect(values.data.every((v) => Number.isFinite(v))).toBe(true);
      const grid = blockGrid(work.weight, settings);
      if (activationOrder)
        for (const d of dead) {
          const index = Math.floor(d / 16);
          expect(values.at(d)).toBe(grid.value(grid.code(work.weight.at(d), index), index));
        }
      expect(await error(silenced, (await gptq(settings).compress(silenced)) as BlockWeight)).toBeLessThan(
        await error(silenced, (await nearest(settings).compress(silenced)) as BlockWeight),
      );
    }
  });

  test("raises the damping of a Hessian that is singular, and says so", async () => {
    // Fewer samples than channels, and no damping asked for.
    const work = job(5, 6, 48, 10);
    const weight = await gptq({ format: "int4", block: 16, damping: 0 }).compress(work);
    expect((await denseValues(weight)).data.every((v) => Number.isFinite(v))).toBe(true);
    expect(work.notes).toEqual(["the Hessian is singular: its damping was raised from 0 to 0.0001"]);
    const usual = job(5, 6, 48, 10);
    await gptq({ format: "int4", block: 16 }).compress(usual);
    expect(usual.notes).toEqual([]);
  });

  test("refuses damping that is none, and matrices of whose inputs nothing is known", async () => {
    expect(() => gptq({ format: "int4", block: 16, damping: -1 })).toThrow("damping must be from 0 to 10, not -1");
    expect(() => gptq({ format: "int4", block: 16, damping: Number.NaN })).toThrow("not NaN");
    await expect(gptq({ format: "int4", block: 16 }).compress({ ...job(1, 2, 16, 20), inputs: null })).rejects.toThrow(
      'nothing is known of the inputs of "w"; use a method that needs no calibration for it',
    );
  });
});

test("through the driver, every matrix of a model with odd widths is better off with GPTQ", async () => {
  const model = tinyModel({ hidden_size: 24, intermediate_size: 40, num_attention_heads: 3, num_key_value_heads: 1 });
  const windows = randomWindows(model.config.vocab, 16, 20);
  const outputErrors = async (method: typeof gptq) => {
    const layers = method({ format: "int3", block: 16 });
    const plan = planFor(model.config, { layers, head: layers, except: { "model.layers.1.*.*.weight": null } });
    const { weights, reports } = await compressDecoder(memorySource(model), plan, windows, device);
    expect((weights["model.layers.0.mlp.down_proj.weight"] as BlockWeight).kind).toBe("blocks");
    return reports;
  };
  const [plain, tuned] = [await outputErrors(nearest), await outputErrors(gptq)];
  expect(tuned.map(({ name }) => name)).toEqual(plain.map(({ name }) => name));
  // Layer 0 and the head.
  expect(tuned.length).toBe(8);
  for (const [i, { name, outputError, method, bitsPerWeight }] of tuned.entries()) {
    expect(outputError, name).toBeLessThan(plain[i]!.outputError!);
    expect(method).toBe("gptq int3 in blocks of 16, damping 0.01");
    expect(bitsPerWeight).toBeGreaterThan(3);
  }
});
