import { describe, expect, test } from "vitest";
import {
  denseValues,
  foldScales,
  layerInputs,
  type MatrixJob,
  memorySource,
  nearest,
  roundedInputs,
  scalablePoints,
  smoothScales,
} from "../../../src/methods/index.ts";
import { asWeight, Dense, RoundedInput, restoreWeights, storeWeights, type Weight } from "../../../src/nn/index.ts";
import { compile } from "../../../src/runtime/index.ts";
import { HostTensor, Rng } from "../../../src/tensor/index.ts";
import { tinyModel } from "../../generate/models.ts";
import { difference } from "./equivalent.ts";
import { randomWindows } from "./methods.ts";

const device = { threads: 1 };
const windows = randomWindows(23, 4, 16);

describe("SmoothQuant", () => {
  test("scales by the paper's equation, with the outputs unchanged", async () => {
    const model = tinyModel();
    const source = memorySource(model);
    const points = (layer: number) => scalablePoints(model.config, layer);
    const scales = await smoothScales(source, windows, { strength: 0.7, ...device });
    for await (const { index, weights, inputs } of layerInputs(source, windows, points, device)) {
      const point = `model.layers.${index}.attn.in`;
      const columns = new Float32Array(16);
      for (const name of ["q", "k", "v"]) {
        const matrix = await denseValues(asWeight(weights[`model.layers.${index}.self_attn.${name}_proj.weight`]!));
        for (let i = 0; i < matrix.size; i++) columns[i % 16] = Math.max(columns[i % 16]!, Math.abs(matrix.at(i)));
      }
      const expected = columns.map((w, j) => inputs.get(point)!.absMax.at(j) ** 0.7 / w ** 0.3);
      for (const [j, s] of scales.get(point)!.entries()) expect(s / expected[j]!).toBeCloseTo(1, 5);
    }
    expect(await difference(model, foldScales(source, scales), windows)).toBeLessThan(1e-4);
  });

  test("passes over the attention that layers do not have", async () => {
    const model = tinyModel({ layer_types: ["full_attention", "no_attention"] });
    const source = memorySource(model);
    const scales = await smoothScales(source, windows, { strength: 0.7, ...device });
    expect([...scales.keys()].filter((point) => point.startsWith("model.layers.1."))).toEqual(
      ["mlp.in", "mlp.act"].map((point) => `model.layers.1.${point}`),
    );
    expect(await difference(model, foldScales(source, scales), windows)).toBeLessThan(1e-4);
  });

  test("at full strength, all channels reach equally far", async () => {
    const model = tinyModel();
    const source = memorySource(model);
    const smooth = foldScales(source, await smoothScales(source, windows, { strength: 1, ...device }));
    const points = (layer: number) => scalablePoints(model.config, layer);
    for await (const { inputs } of layerInputs(smooth, windows, points, device))
      for (const [point, { absMax }] of inputs)
        for (const v of point.endsWith("attn.mix") ? [] : (absMax.data as Float32Array)) expect(v).toBeCloseTo(1, 3);
  });

  test("leaves channels alone that are never active", async () => {
    const model = tinyModel();
    const gain = model.weights["model.layers.0.input_layernorm.weight"] as HostTensor;
    const weights = { ...model.weights, "model.layers.0.input_layernorm.weight": gain.clone() };
    (weights["model.layers.0.input_layernorm.weight"] as HostTensor).set(4, 0);
    const scales = await smoothScales(memorySource({ config: model.config, weights }), windows, device);
    expect(scales.get("model.layers.0.attn.in")![4]).toBe(1);
  });

  test("refuses a strength beyond 1", async () => {
    await expect(smoothScales(memorySource(tinyModel()), windows, { strength: 1.5 })).rejects.toThrow(
      "the strength of smoothing is from 0 to 1, not 1.5",
    );
  });
});

describe("rounded inputs", () => {
  const identity = new Dense(
    HostTensor.from(
      Float32Array.from({ length: 16 }, (_, i) => (i % 5 === 0 ? 1 : 0)),
      { shape: [4, 4] },
    ),
  );
  const x = HostTensor.from([
    [7, -3.4, 0.6, 0.2],
    [0, 0, 0, 0],
    [70, -34, 6, 2],
  ]);
  const applied = async (weight: Weight): Promise<number[]> => {
    await using program = await compile((w, v) => (w as Weight).apply(v), [weight, x] as const, device);
    return Array.from((await program(weight as never, x)).data as Float32Array);
  };

  test("follow each token's largest magnitude, or a fixed range", async () => {
    const near = (found: number[], expected: number[]) =>
      expected.forEach((v, i) => void expect(found[i]).toBeCloseTo(v, 4));
    near(await applied(new RoundedInput(identity, { bits: 4 })), [7, -3, 1, 0, 0, 0, 0, 0, 70, -30, 10, 0]);
    const fixed = new RoundedInput(identity, { bits: 4, range: HostTensor.from(14) });
    near(await applied(fixed), [8, -4, 0, 0, 0, 0, 0, 0, 14, -14, 6, 2]);
  });

  test("leave the matrix as it is, and are stored", async () => {
    const fixed = new RoundedInput(identity, { bits: 5, range: HostTensor.from(14) });
    expect((await denseValues(fixed)).data).toEqual(identity.values instanceof HostTensor && identity.values.data);
    const { tensors, description } = storeWeights({ w: fixed, v: new RoundedInput(identity, { bits: 8 }) });
    const back = restoreWeights(JSON.parse(JSON.stringify(description)), tensors);
    expect(back.w).toMatchObject({ kind: "rounded-input", bits: 5, shape: [4, 4] });
    expect((back.v as RoundedInput).range).toBeUndefined();
    expect(await applied(back.w as Weight)).toEqual(await applied(fixed));
  });

  test("refuse widths and ranges that make no sense", () => {
    expect(() => new RoundedInput(identity, { bits: 1 })).toThrow("inputs are rounded to 2 to 8 bits, not 1");
    expect(() => new RoundedInput(identity, { bits: 8, range: HostTensor.from([1, 2]) })).toThrow(
      "the range of an input is one number, not [2]",
    );
  });

  test("take the range from the calibration text, where one is asked for", async () => {
    const weight = new Rng(1).normalTensor([4, 16]);
    const job = (inputs: MatrixJob["inputs"]): MatrixJob => ({
      name: "w",
      weight,
      inputs,
      rng: new Rng(0),
      device,
      note: () => undefined,
    });
    const method = nearest({ format: "int8", block: "channel" });
    const fixed = roundedInputs(method, { bits: 8, per: "tensor" });
    expect([fixed.calibrated, roundedInputs(method, { bits: 8, per: "token" }).calibrated]).toEqual([true, false]);
    await expect(fixed.compress(job(null))).rejects.toThrow('nothing is known of the inputs of "w"');
    const magnitudes = HostTensor.from(Float32Array.from({ length: 16 }, (_, i) => (i === 7 ? 5 : 1)));
    const inputs = {
      point: "in",
      count: 1,
      gram: HostTensor.zeros("f32", [16, 16]),
      absMean: magnitudes,
      absMax: magnitudes,
    };
    const { range } = (await fixed.compress(job(inputs))) as RoundedInput;
    expect((range as HostTensor).item()).toBe(5);
  });
});
