import fc from "fast-check";
import { describe, expect, test } from "vitest";
import { eigh } from "../../../src/linalg/index.ts";
import {
  compressDecoder,
  denseValues,
  type MatrixJob,
  type MatrixMethod,
  memorySource,
  planFor,
  svd,
  weightErrors,
  whitenedSvd,
} from "../../../src/methods/index.ts";
import { Dense, type LowRank } from "../../../src/nn/index.ts";
import { HostTensor } from "../../../src/tensor/index.ts";
import { tinyModel } from "../../generate/models.ts";
import { job } from "./jobs.ts";
import { randomWindows } from "./methods.ts";

const device = { threads: 1 };

const errors = async (work: MatrixJob, method: MatrixMethod) =>
  weightErrors(work.weight, await method.compress(work), work.inputs!.gram, device);

/** The squared singular values of `W S` for any `S` with `S S^T` = `gram`, descending: eigenvalues of `W G W^T`. */
async function energies({ weight }: MatrixJob, gram: (i: number, j: number) => number): Promise<number[]> {
  const [out, width] = weight.shape as [number, number];
  const product = HostTensor.zeros("f64", [out, out]);
  for (let a = 0; a < out; a++)
    for (let b = 0; b < out; b++) {
      let total = 0;
      for (let i = 0; i < width; i++)
        for (let j = 0; j < width; j++) total += weight.at(a * width + i) * gram(i, j) * weight.at(b * width + j);
      product.set(a * out + b, total);
    }
  return (await eigh(product)).values.toArray().reverse();
}

/** The share that all but the first `rank` have of the whole. */
function dropped(values: readonly number[], rank: number): number {
  const total = (of: readonly number[]): number => of.reduce((a, b) => a + b, 0);
  return total(values.slice(rank)) / total(values);
}

const shapes = fc.constantFrom<[number, number]>([12, 20], [20, 12], [16, 16]);
const seeds = fc.integer({ min: 1, max: 1e6 });

describe("truncated singular values", () => {
  test("plain: what is lost of the matrix is the dropped values' squares", async () => {
    await fc.assert(
      fc.asyncProperty(shapes, seeds, fc.integer({ min: 1, max: 6 }), async ([out, width], seed, rank) => {
        const work = job(seed, out, width, 60);
        const values = await energies(work, (i, j) => (i === j ? 1 : 0));
        expect((await errors(work, svd({ rank }))).weightError ** 2).toBeCloseTo(dropped(values, rank), 5);
      }),
      { seed: 1, numRuns: 8 },
    );
  }, 120_000);

  test("whitened: what is lost of the output is the dropped values' squares", async () => {
    await fc.assert(
      fc.asyncProperty(shapes, seeds, fc.integer({ min: 1, max: 6 }), async ([out, width], seed, rank) => {
        const work = job(seed, out, width, 60);
        const gram = (i: number, j: number): number => work.inputs.gram.at(i * width + j);
        const values = await energies(work, gram);
        expect((await errors(work, whitenedSvd({ rank }))).outputError! ** 2).toBeCloseTo(dropped(values, rank), 5);
        expect(work.notes).toEqual([]);
      }),
      { seed: 2, numRuns: 8 },
    );
  }, 120_000);

  test("each is the better one at what it is for", async () => {
    await fc.assert(
      fc.asyncProperty(shapes, seeds, async ([out, width], seed) => {
        const work = job(seed, out, width, 60);
        const [plain, whitened] = [await errors(work, svd({ rank: 4 })), await errors(work, whitenedSvd({ rank: 4 }))];
        expect(whitened.outputError!).toBeLessThan(plain.outputError!);
        expect(plain.weightError).toBeLessThan(whitened.weightError);
      }),
      { seed: 3, numRuns: 6 },
    );
  }, 120_000);

  test("with inputs that have nothing to do with each other and are alike, or are none, whitening changes nothing", async () => {
    const work = job(4, 14, 18, 60);
    const plain = await denseValues(await svd({ rank: 5 }).compress(work));
    for (const input of [0, 2.5]) {
      const gram = HostTensor.zeros("f32", [18, 18]);
      for (let i = 0; i < 18; i++) gram.set(i * 19, input);
      const notes: string[] = [];
      const apart = { ...work, inputs: { ...work.inputs, gram }, note: (remark: string) => notes.push(remark) };
      const whitened = await denseValues(await whitenedSvd({ rank: 5 }).compress(apart));
      whitened.toArray().forEach((v, k) => void expect(v).toBeCloseTo(plain.at(k), 4));
      expect(notes.length).toBe(input === 0 ? 1 : 0);
    }
  });

  test("damps a Hessian that is singular, says so, and still keeps what the inputs see", async () => {
    const work = job(5, 16, 32, 4);
    const whitened = await errors(work, whitenedSvd({ rank: 4 }));
    expect(work.notes).toEqual(["the Hessian is singular: its damping was raised from 0 to 0.0001"]);
    // Four samples span four dimensions.
    expect(whitened.outputError!).toBeLessThan(1e-2);
    expect((await errors(work, svd({ rank: 4 }))).outputError!).toBeGreaterThan(0.3);
  });
});

describe.each([
  ["svd", svd],
  ["whitenedSvd", whitenedSvd],
] as const)("%s", (_name, method) => {
  test("keeps as many values as a share of the parameters buys", async () => {
    await fc.assert(
      fc.asyncProperty(shapes, fc.double({ min: 0.2, max: 1, noNaN: true }), async ([out, width], ratio) => {
        const weight = (await method({ ratio }).compress(job(6, out, width, 60))) as LowRank;
        expect(weight.shape).toEqual([out, width]);
        expect(weight.bytes).toBe(4 * weight.rank * (out + width));
        expect(weight.rank * (out + width)).toBeLessThanOrEqual(ratio * out * width);
        expect((weight.rank + 1) * (out + width)).toBeGreaterThan(ratio * out * width);
      }),
      { seed: 4, numRuns: 8 },
    );
  }, 120_000);

  test("leaves a matrix that the rank would make larger, and says so", async () => {
    const work = job(7, 12, 20, 60);
    const weight = await method({ rank: 8 }).compress(work);
    expect(weight).toBeInstanceOf(Dense);
    expect((await denseValues(weight)).data).toEqual(work.weight.data);
    expect(work.notes).toEqual(["factors of rank 8 have more parameters than the matrix, which was left as it is"]);
  });

  test("refuses ranks and shares that are none", async () => {
    const work = job(8, 12, 20, 60);
    await expect(method({ rank: 13 }).compress(work)).rejects.toThrow('"w" [12, 20] has no rank of 13');
    await expect(method({ ratio: 0.1 }).compress(work)).rejects.toThrow(
      'a share of 0.1 of "w" [12, 20] has too few parameters for a rank of 1; keep more',
    );
    for (const rank of [0, 1.5]) expect(() => method({ rank })).toThrow(`a rank is a whole number from 1, not ${rank}`);
    for (const ratio of [0, 1.1, Number.NaN])
      expect(() => method({ ratio })).toThrow(`the share of parameters to keep is above 0 and at most 1, not ${ratio}`);
  });
});

test("through the driver, every matrix's output is nearer with whitening", async () => {
  const model = tinyModel({ hidden_size: 24, intermediate_size: 40, num_attention_heads: 3, num_key_value_heads: 1 });
  const windows = randomWindows(model.config.vocab, 16, 20);
  const reportsWith = async (layers: MatrixMethod) => {
    const plan = planFor(model.config, { layers, head: layers, except: { "model.layers.1.*.*.weight": null } });
    return (await compressDecoder(memorySource(model), plan, windows, device)).reports;
  };
  const [plain, whitened] = [await reportsWith(svd({ ratio: 0.5 })), await reportsWith(whitenedSvd({ ratio: 0.5 }))];
  // Layer 0 and the head.
  expect(whitened.length).toBe(8);
  for (const [i, { name, outputError, kind, method }] of whitened.entries()) {
    expect(outputError, name).toBeLessThan(plain[i]!.outputError!);
    expect([kind, method]).toEqual(["low-rank", "whitened svd ratio 0.5"]);
  }
});
