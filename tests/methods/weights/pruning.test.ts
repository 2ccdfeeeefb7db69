import fc from "fast-check";
import { describe, expect, test } from "vitest";
import {
  compressDecoder,
  denseValues,
  type MatrixJob,
  type MatrixMethod,
  magnitude,
  memorySource,
  planFor,
  type Sparsity,
  sparseGpt,
  wanda,
  weightErrors,
} from "../../../src/methods/index.ts";
import { Dense, type Weight } from "../../../src/nn/index.ts";
import { HostTensor, Rng } from "../../../src/tensor/index.ts";
import { tinyModel } from "../../generate/models.ts";
import { inverse, job } from "./jobs.ts";
import { randomWindows } from "./methods.ts";

const device = { threads: 1 };
const methods = { magnitude, wanda, sparseGpt } as const;
const each = Object.entries<(pattern: Sparsity) => MatrixMethod>(methods);

const patterns = fc.oneof(
  fc.record({ sparsity: fc.constantFrom(0, 0.1, 0.5, 0.65, 0.99) }),
  fc.constantFrom({ keep: 2, of: 4 }, { keep: 1, of: 4 }, { keep: 4, of: 8 }, { keep: 3, of: 3 }, { keep: 1, of: 24 }),
);

/** The places of a group, without the least scores among them. */
function kept(places: readonly number[], score: (place: number) => number, count: number): number[] {
  return places.toSorted((a, b) => score(a) - score(b) || a - b).slice(count);
}

/** Consecutive stretches of `size` places out of `total`. */
function stretches(total: number, size: number): number[][] {
  return Array.from({ length: total / size }, (_, g) => Array.from({ length: size }, (_, i) => g * size + i));
}

/** What is left of a matrix where each stretch of `size` entries is pruned by itself. */
function plainlyPruned(weight: HostTensor, pattern: Sparsity, size: number, score: (place: number) => number) {
  const result = new Float32Array(weight.size);
  const [stretch, share] =
    "of" in pattern ? [pattern.of, (pattern.of - pattern.keep) / pattern.of] : [size, pattern.sparsity];
  for (const group of stretches(weight.size, stretch))
    for (const place of kept(group, score, Math.round(share * stretch))) result[place] = weight.at(place);
  return result;
}

const energy = ({ inputs, weight }: MatrixJob, column: number): number =>
  inputs!.gram.at(column * (weight.shape[1]! + 1));

describe("masks by scores", () => {
  // Whole numbers, so that many scores are equal.
  const jobs = fc
    .record({ seed: fc.integer({ min: 1, max: 1e6 }), out: fc.integer({ min: 1, max: 6 }) })
    .map(({ seed, out }) => {
      const work = job(seed, out, 48, 30);
      const whole = (work.weight.data as Float32Array).map((v) => Math.round(2 * v) || 0);
      return { ...work, weight: new HostTensor("f32", [out, 48], whole) };
    });

  test("magnitude drops the least of the matrix, or of each group", async () => {
    await fc.assert(
      fc.asyncProperty(jobs, patterns, async (work, pattern) => {
        const values = await denseValues(await magnitude(pattern).compress(work), device);
        const expected = plainlyPruned(work.weight, pattern, work.weight.size, (k) => Math.abs(work.weight.at(k)));
        expect(values.data).toEqual(expected);
      }),
      { seed: 1, numRuns: 30 },
    );
  }, 120_000);

  test("Wanda drops of each row what times its inputs' norm is least", async () => {
    await fc.assert(
      fc.asyncProperty(jobs, patterns, async (work, pattern) => {
        const values = await denseValues(await wanda(pattern).compress(work), device);
        const score = (k: number) => Math.abs(work.weight.at(k)) * Math.sqrt(energy(work, k % 48));
        expect(values.data).toEqual(plainlyPruned(work.weight, pattern, 48, score));
      }),
      { seed: 2, numRuns: 30 },
    );
  }, 120_000);
});

/**
 * The paper's equations in double precision, one column at a time: the inverse of what is left of the Hessian by
 * elimination of each column, no Cholesky factor, no lazy products.
 */
function plainSparseGpt({ weight, inputs }: MatrixJob, pattern: Sparsity): Float64Array {
  const [out, width] = weight.shape as [number, number];
  const gram = inputs!.gram;
  const columns = Array.from({ length: width }, (_, i) => i);
  const mean = columns.reduce((sum, i) => sum + gram.at(i * width + i) / width, 0);
  let left = inverse(columns.map((i) => columns.map((j) => gram.at(i * width + j) + (i === j ? 0.01 * mean : 0))));
  const pivots = columns.map((i) => {
    const pivot = left[i]!;
    left = left.map((row) => row.map((v, k) => v - (row[i]! * pivot[k]!) / pivot[i]!));
    return pivot;
  });
  const w = Float64Array.from(weight.data as Float32Array);
  const cost = (place: number): number => w[place]! ** 2 / pivots[place % width]![place % width]!;
  const size = "of" in pattern ? pattern.of : 128;
  let spared = new Set<number>();
  for (const i of columns) {
    if (i % size === 0) {
      const block = columns.slice(i, i + size);
      const places = block.flatMap((j) => Array.from({ length: out }, (_, r) => r * width + j)).sort((a, b) => a - b);
      spared = new Set(
        "of" in pattern
          ? Array.from({ length: out }, (_, r) => r).flatMap((r) =>
              kept(
                block.map((j) => r * width + j),
                cost,
                pattern.of - pattern.keep,
              ),
            )
          : kept(
              places,
              cost,
              Math.round(pattern.sparsity * out * (i + block.length)) - Math.round(pattern.sparsity * out * i),
            ),
      );
    }
    for (let r = 0; r < out; r++) {
      const place = r * width + i;
      if (spared.has(place)) continue;
      const error = w[place]! / pivots[i]![i]!;
      w[place] = 0;
      for (let j = i + 1; j < width; j++) w[r * width + j]! -= error * pivots[i]![j]!;
    }
  }
  return w;
}

describe("SparseGPT", () => {
  const worst = async (work: MatrixJob, pattern: Sparsity): Promise<number> => {
    const values = await denseValues(await sparseGpt(pattern).compress(work), device);
    return plainSparseGpt(work, pattern).reduce((most, v, k) => Math.max(most, Math.abs(values.at(k) - v)), 0);
  };

  test("gives what its equations give one column at a time", async () => {
    await fc.assert(
      fc.asyncProperty(patterns, fc.integer({ min: 1, max: 1e6 }), async (pattern, seed) => {
        expect(await worst(job(seed, 5, 72, 100), pattern)).toBeLessThan(1e-4);
      }),
      { seed: 3, numRuns: 16 },
    );
  }, 120_000);

  test.each([
    ["in plain loops", 6],
    ["on onnxruntime", 1100],
  ])(
    "gives the same across batches whose products are taken %s",
    async (_how, out) => {
      const work = job(11, out, 160, 240);
      // Groups of ten make batches of 120.
      for (const pattern of [{ sparsity: 0.5 }, { keep: 5, of: 10 }])
        expect(await worst(work, pattern), JSON.stringify(pattern)).toBeLessThan(2e-4);
    },
    120_000,
  );

  test("loses less of the output than magnitude pruning, whatever the seed", async () => {
    await fc.assert(
      fc.asyncProperty(
        fc.constantFrom<Sparsity>({ sparsity: 0.5 }, { sparsity: 0.3 }, { keep: 2, of: 4 }),
        fc.integer({ min: 1, max: 1e6 }),
        async (pattern, seed) => {
          const work = job(seed, 12, 64, 160);
          const error = async (method: MatrixMethod): Promise<number> =>
            (await weightErrors(work.weight, await method.compress(work), work.inputs.gram, device)).outputError!;
          expect(await error(sparseGpt(pattern))).toBeLessThan(await error(magnitude(pattern)));
        },
      ),
      { seed: 4, numRuns: 16 },
    );
  }, 120_000);

  test("raises the damping of a Hessian that is singular, and says so", async () => {
    const work = job(5, 6, 48, 10);
    const weight = await sparseGpt({ sparsity: 0.5 }, { damping: 0 }).compress(work);
    expect((await denseValues(weight)).data.every((v) => Number.isFinite(v))).toBe(true);
    expect(work.notes).toEqual(["the Hessian is singular: its damping was raised from 0 to 0.0001"]);
  });

  test("with inputs that have nothing to do with each other, changes nothing that it keeps", async () => {
    const work = job(2, 6, 32, 40);
    const gram = HostTensor.zeros("f32", [32, 32]);
    for (let i = 0; i < 32; i++) gram.set(i * 33, 3);
    for (const pattern of [{ sparsity: 0.5 }, { keep: 2, of: 4 }]) {
      const ours = await sparseGpt(pattern).compress({ ...work, inputs: { ...work.inputs, gram } });
      const plain = await magnitude(pattern).compress(work);
      expect((await denseValues(ours)).data).toEqual((await denseValues(plain)).data);
    }
  });
});

describe.each(each)("%s", (_name, method) => {
  const zeros = (values: HostTensor, from: number, to: number): number =>
    values
      .toArray()
      .slice(from, to)
      .filter((v) => v === 0).length;

  test("drops exactly as much as was asked for", async () => {
    const work = job(7, 9, 200, 240);
    for (const sparsity of [0.1, 0.5, 0.777]) {
      const weight = await method({ sparsity }).compress(work);
      const values = await denseValues(weight);
      expect(weight.kind).toBe("sparse");
      expect(zeros(values, 0, 1800)).toBe(
        method === wanda ? 9 * Math.round(sparsity * 200) : Math.round(sparsity * 1800),
      );
      if (method === wanda)
        for (const row of stretches(1800, 200))
          expect(zeros(values, row[0]!, row[0]! + 200)).toBe(Math.round(sparsity * 200));
    }
    for (const [keep, of] of [
      [2, 4],
      [4, 8],
      [1, 5],
    ] as const) {
      const weight = await method({ keep, of }).compress(work);
      const values = await denseValues(weight);
      expect(weight.kind).toBe(of === 4 ? "sparse24" : "sparse");
      for (const [first] of stretches(1800, of)) expect(zeros(values, first!, first! + of)).toBe(of - keep);
    }
  });

  test("changes nothing where nothing is dropped", async () => {
    const work = job(3, 4, 136, 150);
    for (const pattern of [{ sparsity: 0 }, { keep: 4, of: 4 }]) {
      const weight = await method(pattern).compress(work);
      expect(weight).toBeInstanceOf(Dense);
      expect((await denseValues(weight)).data).toEqual(work.weight.data);
    }
  });

  test("takes the bytes that it says, and never more than the matrix", async () => {
    const work = job(8, 6, 32, 40);
    const bytes = async (pattern: Sparsity): Promise<[string, number]> => {
      const weight: Weight = await method(pattern).compress(work);
      return [weight.kind, weight.bytes];
    };
    // Values of 4 bytes, and two bits for the place of each.
    expect(await bytes({ keep: 2, of: 4 })).toEqual(["sparse24", 96 * 4 + 96 / 4]);
    // A bit for each entry.
    expect(await bytes({ sparsity: 0.5 })).toEqual(["sparse", 96 * 4 + 192 / 8]);
    expect(await bytes({ sparsity: 0.01 })).toEqual(["dense", 192 * 4]);
  });

  test("copes with dead channels, and with matrices of zeros", async () => {
    const work = job(9, 6, 40, 60);
    const gram = work.inputs.gram.clone();
    const dead = [3, 4, 17, 39];
    for (const d of dead) for (let i = 0; i < 40; i++) for (const k of [d * 40 + i, i * 40 + d]) gram.set(k, 0);
    const silenced = { ...work, inputs: { ...work.inputs, gram } };
    for (const pattern of [{ sparsity: 0.5 }, { keep: 2, of: 4 }]) {
      const values = await denseValues(await method(pattern).compress(silenced));
      expect(values.data.every((v) => Number.isFinite(v))).toBe(true);
      // What is never multiplied with anything goes first.
      if (method !== magnitude) for (const d of dead) for (let r = 0; r < 6; r++) expect(values.at(r * 40 + d)).toBe(0);
      const nothing = { ...silenced, weight: HostTensor.zeros("f32", [6, 40]) };
      const still = await denseValues(await method(pattern).compress(nothing));
      expect(still.data).toEqual(nothing.weight.data);
    }
  });

  test("refuses what it cannot prune, and patterns that are none", async () => {
    const work = job(1, 2, 18, 20);
    await expect(method({ keep: 2, of: 4 }).compress(work)).rejects.toThrow(
      'the rows of "w" have 18 entries, which do not divide into groups of 4; prune it without groups or leave it out',
    );
    if (method !== magnitude)
      await expect(method({ sparsity: 0.5 }).compress({ ...work, inputs: null })).rejects.toThrow(
        'nothing is known of the inputs of "w"; use a method that needs no calibration for it',
      );
    for (const sparsity of [-0.1, 1, Number.NaN])
      expect(() => method({ sparsity })).toThrow(`sparsity must be from 0 to below 1, not ${sparsity}`);
    for (const [keep, of] of [
      [0, 4],
      [5, 4],
      [1.5, 4],
    ] as const)
      expect(() => method({ keep, of })).toThrow(`of a group of neighbours one to all are kept, not ${keep} of ${of}`);
  });

  test("gets through the driver no weights that are not finite", async () => {
    const model = tinyModel();
    const name = "model.layers.0.mlp.up_proj.weight";
    const values = new Rng(1).normalTensor([...(model.weights[name] as Weight).shape]);
    values.set(3, Number.NaN);
    const source = memorySource({ ...model, weights: { ...model.weights, [name]: new Dense(values) } });
    const plan = planFor(model.config, { layers: method({ sparsity: 0.5 }) });
    await expect(compressDecoder(source, plan, randomWindows(model.config.vocab, 2, 8), device)).rejects.toThrow(
      `"${name}" holds NaN at entry 3; the model is damaged`,
    );
  });
});

test("through the driver, a model with odd widths is better off with SparseGPT than with magnitudes", async () => {
  const model = tinyModel({ hidden_size: 24, intermediate_size: 40, num_attention_heads: 3, num_key_value_heads: 1 });
  const windows = randomWindows(model.config.vocab, 16, 20);
  const reportsWith = async (method: MatrixMethod) => {
    const plan = planFor(model.config, { layers: method, head: method, except: { "model.layers.1.*.*.weight": null } });
    return (await compressDecoder(memorySource(model), plan, windows, device)).reports;
  };
  const [plain, tuned] = [
    await reportsWith(magnitude({ keep: 2, of: 4 })),
    await reportsWith(sparseGpt({ keep: 2, of: 4 })),
  ];
  // Layer 0 and the head.
  expect(tuned.length).toBe(8);
  for (const [i, { name, outputError, method, kind }] of tuned.entries()) {
    expect(outputError, name).toBeLessThan(plain[i]!.outputError!);
    expect([method, kind]).toEqual(["sparsegpt 2:4, damping 0.01", "sparse24"]);
  }
});
