import { existsSync } from "node:fs";
import { join } from "node:path";
import { describe, expect, test } from "vitest";
import {
  compressDecoder,
  denseValues,
  foldGains,
  gptq,
  layerInputs,
  memorySource,
  nearest,
  onlineHadamard,
  planFor,
  rotateResidual,
  roundedInputs,
  weightErrors,
} from "../../../src/methods/index.ts";
import { decoderShapes } from "../../../src/models/index.ts";
import { embeddedModel, openModel } from "../../../src/models/node.ts";
import { asWeight } from "../../../src/nn/index.ts";
import { HostTensor, Rng } from "../../../src/tensor/index.ts";
import { tinyModel } from "../../generate/models.ts";
import { difference, outlierModel, readAll } from "./equivalent.ts";
import { identity, randomWindows } from "./methods.ts";

const device = { threads: 1 };
const windows = randomWindows(23, 4, 16);

const members: Record<string, Record<string, unknown>> = {
  llama: {},
  "llama with a tied head": { tie_word_embeddings: true },
  "llama with biases everywhere": { attention_bias: true, mlp_bias: true },
  "qwen3, with norms of queries and keys": { model_type: "qwen3", head_dim: 4 },
  "a width of 12": { hidden_size: 12, num_attention_heads: 2, num_key_value_heads: 1 },
  "a width without a Hadamard matrix": { hidden_size: 56, num_attention_heads: 2, num_key_value_heads: 1 },
};

describe("a rotated model", () => {
  test.each(Object.entries(members))("computes the same: %s", async (_, changes) => {
    const model = await outlierModel(changes);
    for (const seed of [0, 1])
      expect(await difference(model, rotateResidual(model.source, { seed }), windows)).toBeLessThan(1e-4);
    expect(await difference(model, foldGains(model.source), windows)).toBeLessThan(1e-4);
  });

  test("has weights for its own configuration: an untied head, gains of one", async () => {
    const { source, config } = await outlierModel({ tie_word_embeddings: true });
    expect(config.tied).toBe(true);
    const rotated = await readAll(rotateResidual(source));
    expect(rotated.config.tied).toBe(false);
    memorySource(rotated);
    for (const name of decoderShapes(rotated.config).keys())
      if (name.includes("norm"))
        expect(Array.from((rotated.weights[name] as HostTensor).data as Float32Array), name).toEqual(
          new Array(16).fill(1),
        );
  });

  test("has no outlier channels left in its stream", async () => {
    const { source, config } = await outlierModel();
    const points = () => new Map([["model.layers.0.attn.in", config.dim]]);
    const spread = async (from: typeof source): Promise<number> => {
      for await (const { inputs } of layerInputs(from, windows, points, device)) {
        const { absMax } = inputs.get("model.layers.0.attn.in")!;
        const values = Array.from(absMax.data as Float32Array);
        return Math.max(...values) / (values.reduce((a, b) => a + b) / values.length);
      }
      return Number.NaN;
    };
    expect(await spread(foldGains(source))).toBeGreaterThan(4);
    expect(await spread(rotateResidual(source))).toBeLessThan(2);
  });

  test("is another for another seed, and the same for the same", async () => {
    const { source } = await outlierModel();
    const head = async (seed: number) =>
      (await denseValues(asWeight(await rotateResidual(source, { seed }).read("lm_head.weight")))).data;
    expect(await head(1)).toEqual(await head(1));
    expect(await head(1)).not.toEqual(await head(2));
  });

  test("is refused where norms do not commute", () => {
    const gemma = tinyModel({ model_type: "gemma2", head_dim: 4, query_pre_attn_scalar: 4 });
    expect(() => rotateResidual(memorySource(gemma))).toThrow("the gains of a gemma2's norms cannot be folded");
  });

  test.runIf(existsSync(join(embeddedModel, "model.safetensors")))(
    "computes the same as the embedded model",
    async () => {
      await using model = await openModel(embeddedModel);
      const ids = randomWindows(model.config.vocab, 2, 24);
      expect(await difference(model, rotateResidual(memorySource(model)), ids)).toBeLessThan(1e-4);
    },
    60_000,
  );
});

describe("the online Hadamard transform", () => {
  const rng = new Rng(4);
  const [out, width, samples] = [8, 48, 200];
  const weight = rng.normalTensor([out, width]);
  // Two inputs are far larger than the others.
  const x = Float64Array.from({ length: samples * width }, (_, i) => rng.normal() * (i % width < 2 ? 30 : 1));
  const gram = HostTensor.zeros("f32", [width, width]);
  for (let i = 0; i < width; i++)
    for (let j = 0; j < width; j++) {
      let total = 0;
      for (let s = 0; s < samples; s++) total += x[s * width + i]! * x[s * width + j]!;
      gram.set(i * width + j, total);
    }
  const channel = HostTensor.zeros("f32", [width]);
  const inputs = { point: "in", count: samples, gram, absMean: channel, absMax: channel };
  const job = { name: "w", weight, inputs, rng, device, note: () => undefined };

  test("changes nothing by itself", async () => {
    const turned = await onlineHadamard(identity).compress(job);
    expect(turned).toMatchObject({ kind: "transformed", hadamard: 16 });
    const { weightError } = await weightErrors(weight, turned, null, device);
    expect(weightError).toBeLessThan(1e-6);
  });

  test("hands the method the products of turned inputs", async () => {
    const grid = { format: "int3", block: 16 } as const;
    const error = async (method: ReturnType<typeof gptq>): Promise<number> =>
      (await weightErrors(weight, await method.compress(job), gram, device)).outputError!;
    // GPTQ is better than rounding to nearest only with the right Hessian.
    expect(await error(onlineHadamard(gptq(grid)))).toBeLessThan(await error(onlineHadamard(nearest(grid))));
  });

  test("refuses methods that need magnitudes of the turned inputs", async () => {
    const fixed = roundedInputs(nearest({ format: "int8", block: 16 }), { bits: 8, per: "tensor" });
    await expect(onlineHadamard(fixed).compress(job)).rejects.toThrow(
      'of the turned inputs at "in" only their products are known',
    );
  });

  test("runs in a whole model", async () => {
    const { source, config, weights } = await outlierModel();
    const rotated = rotateResidual(source);
    const plan = planFor(rotated.config, {
      layers: null,
      except: { "*.*.*.mlp.down_proj.weight": onlineHadamard(identity) },
    });
    const result = await compressDecoder(rotated, plan, windows, device);
    expect(result.reports.map(({ kind }) => kind)).toEqual(["transformed", "transformed"]);
    const whole = { config: rotated.config, read: async (name: string) => result.weights[name]! };
    expect(await difference({ config, weights }, whole, windows)).toBeLessThan(1e-4);
  });
});
