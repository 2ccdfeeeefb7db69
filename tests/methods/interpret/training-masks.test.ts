import { describe, expect, it } from "vitest";
import {
  layerMatrices,
  lowMagnitudeMask,
  type MaskKind,
  masksByPath,
  trainingMasks,
} from "../../../src/methods/index.ts";
import { asWeight, roundToBlocks } from "../../../src/nn/index.ts";
import type { HostTensor } from "../../../src/tensor/index.ts";
import { Rng } from "../../../src/tensor/index.ts";
import { tinyModel } from "../../generate/models.ts";

const { weights } = tinyModel({});
const made = (kind: MaskKind, share?: number) =>
  trainingMasks(weights, { kind, rng: new Rng(3), ...(share !== undefined && { share }) });

describe("trainingMasks", () => {
  it("lie on all matrices of the layers, safe ones being what is small or not principal", async () => {
    const matrices = layerMatrices(weights);
    const [safe, principal, low] = await Promise.all([made("safe"), made("principal"), made("low")]);
    expect([...safe.keys()]).toEqual([...matrices.keys()]);
    for (const [name, mask] of safe) {
      expect(mask).toEqual(low.get(name)!.or(principal.get(name)!.not()));
      expect(low.get(name)).toEqual(lowMagnitudeMask(matrices.get(name)!, 0.5));
      expect(principal.get(name)!.share).toBeCloseTo(0.5, 2);
    }
  });

  it("at random are as large as safe ones", async () => {
    const [safe, random] = await Promise.all([made("safe", 0.3), made("random", 0.3)]);
    for (const [name, mask] of random) {
      expect(mask.count).toBe(safe.get(name)!.count);
      expect(mask).not.toEqual(safe.get(name));
    }
  });

  it("go to the trainer by the paths of the values", async () => {
    const tensors = masksByPath(await made("low", 0.25));
    const mask = tensors["model.layers.0.mlp.up_proj.weight.values"]!;
    expect(mask.dtype).toBe("bool");
    const share = mask.toArray().reduce((sum, bit) => sum + Number(bit), 0) / mask.size;
    expect(share).toBeCloseTo(0.25, 2);
  });

  it("are of dense weights only, and end with the signal", async () => {
    const name = "model.layers.0.mlp.up_proj.weight";
    const dense = asWeight(weights[name]!) as unknown as { readonly values: HostTensor };
    const packed = { ...weights, [name]: roundToBlocks(dense.values, { format: "int8", block: "channel" }) };
    await expect(trainingMasks(packed, { kind: "low", rng: new Rng(0) })).rejects.toThrow(
      `"${name}" is represented as blocks; only dense weights have entries to choose`,
    );
    const signal = AbortSignal.abort(new Error("enough"));
    await expect(trainingMasks(weights, { kind: "low", rng: new Rng(0), signal })).rejects.toThrow("enough");
    await expect(made("safe", 1)).rejects.toThrow("alpha must be above 0 and below 1, not 1");
  });
});
