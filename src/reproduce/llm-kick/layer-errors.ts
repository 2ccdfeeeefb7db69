import {
  calibrationWindows,
  denseValues,
  layerInputs,
  type MatrixMethod,
  magnitude,
  memorySource,
  sparseGpt,
  wanda,
  weightErrors,
} from "../../methods/index.ts";
import { decoderShapes, matrixInput } from "../../models/index.ts";
import { asWeight } from "../../nn/index.ts";
import { Rng } from "../../tensor/index.ts";
import type { Student } from "./student.ts";

/** How often methods keep a matrix's output better than others do, on the same inputs. */
export interface LayerErrors {
  readonly matrices: number;
  /** Share of them where SparseGPT's error is at most Wanda's, and Wanda's at most that of magnitude pruning. */
  readonly ordered: number;
}

/** Output errors at a sparsity of 0.5 of every matrix, each with the inputs that it has in the dense model. */
export async function layerErrors({ config, weights, training }: Student, length: number): Promise<LayerErrors> {
  const half = { sparsity: 0.5 };
  const methods: readonly MatrixMethod[] = [sparseGpt(half), wanda(half), magnitude(half)];
  const windows = calibrationWindows(training, { count: 128, length });
  const shapes = decoderShapes(config);
  const names = [...shapes].filter(([name, shape]) => shape.length === 2 && name.startsWith("model.layers."));
  const pointsOf = (layer: number): Map<string, number> =>
    new Map(
      names
        .filter(([name]) => name.startsWith(`model.layers.${layer}.`))
        .map(([name, shape]) => [matrixInput(name), shape[1]!]),
    );
  let [matrices, ordered] = [0, 0];
  for await (const layer of layerInputs(memorySource({ config, weights }), windows, pointsOf))
    for (const [name] of names) {
      const before = layer.weights[name];
      if (!before) continue;
      const weight = await denseValues(asWeight(before));
      const inputs = layer.inputs.get(matrixInput(name))!;
      const errors: number[] = [];
      for (const method of methods) {
        const job = { name, weight, inputs, rng: new Rng(0), device: {}, note: () => undefined };
        errors.push((await weightErrors(weight, await method.compress(job), inputs.gram)).outputError!);
      }
      matrices++;
      if (errors[0]! <= errors[1]! && errors[1]! <= errors[2]!) ordered++;
    }
  return { matrices, ordered: ordered / matrices };
}
