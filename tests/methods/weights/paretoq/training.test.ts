import { describe, expect, it } from "vitest";
import {
  effectiveBytes,
  flooredScales,
  fromParetoqCheckpoint,
  type ParetoqOptions,
  paretoqConvert,
  paretoqPack,
  paretoqTrain,
  sizeFront,
  toParetoqCheckpoint,
  weightShift,
} from "../../../../src/methods/index.ts";
import { decoderConfig, decoderLogits, initDecoder, type Weights } from "../../../../src/models/index.ts";
import { BlockWeight, Dense, FakeQuantized } from "../../../../src/nn/index.ts";
import { compile } from "../../../../src/runtime/index.ts";
import { HostTensor, Rng } from "../../../../src/tensor/index.ts";
import { TokenBatches } from "../../../../src/train/index.ts";
import { expectClose } from "../../../support/numbers.ts";

const config = decoderConfig({
  model_type: "llama",
  vocab_size: 16,
  hidden_size: 16,
  intermediate_size: 32,
  num_hidden_layers: 1,
  num_attention_heads: 2,
  max_position_embeddings: 32,
  tie_word_embeddings: true,
});
const fresh = (): Weights => initDecoder(config, new Rng(1));
const tokens = Array.from({ length: 600 }, (_, i) => (i * i + 3 * i) % 16);
const data = (): TokenBatches => new TokenBatches(tokens, { batch: 4, length: 16, seed: 2 });
const up = "model.layers.0.mlp.up_proj.weight";

async function logits(weights: Weights): Promise<number[]> {
  const ids = HostTensor.from(BigInt64Array.from(tokens.slice(0, 16), BigInt), { shape: [1, 16] });
  await using program = await compile((t) => decoderLogits(config, weights, t), [ids], { threads: 1 });
  return (await program(ids)).toArray();
}

describe("paretoqConvert", () => {
  it("rounds the matrices of the layers, and those only", async () => {
    const weights = await paretoqConvert(fresh(), { bits: 2 });
    const rounded = Object.keys(weights).filter((name) => weights[name] instanceof FakeQuantized);
    expect(rounded).toEqual(Object.keys(weights).filter((name) => name.includes("_proj")));
    expect(rounded).toHaveLength(7);
    const some = await paretoqConvert(fresh(), { bits: 2, skip: /down_proj/ });
    expect(some["model.layers.0.mlp.down_proj.weight"]).toBeInstanceOf(Dense);
    const one = await paretoqConvert(fresh(), { bits: { [up]: 1.58 } });
    expect(Object.keys(one).filter((name) => one[name] instanceof FakeQuantized)).toEqual([up]);
  });

  it("refuses what cannot be converted", async () => {
    const fail = (options: ParetoqOptions, weights = fresh()) => expect(paretoqConvert(weights, options)).rejects;
    await fail({ bits: 5 as 4 }).toThrow("ParetoQ supports 1, 1.58, 2, 3, 4 bits, not 5");
    await fail({ bits: { "no.weight": 2 } }).toThrow('there is no weight "no.weight" to give bits to');
    await fail({ bits: { "model.norm.weight": 2 } }).toThrow(
      '"model.norm.weight" is [16]; only matrices [out, in] are rounded',
    );
    await fail({ bits: 2 }, await paretoqConvert(fresh(), { bits: 2 })).toThrow(
      "is in training for few bits already; convert the full-precision model",
    );
  });
});

describe("paretoqTrain", () => {
  it("trains in full precision, then in few bits, and packs to the same logits", async () => {
    const losses: number[] = [];
    const phases: string[] = [];
    const { full, weights, floored } = await paretoqTrain({
      config,
      weights: fresh(),
      data: data(),
      steps: 60,
      fpFraction: 0.75,
      bits: 2,
      threads: 1,
      onLog: (phase, { values }) => {
        phases.push(phase);
        losses.push(values.loss!);
      },
    });
    expect(phases.filter((phase) => phase === "full precision")).toHaveLength(45);
    expect(phases).toHaveLength(60);
    expect(losses.at(-1)).toBeLessThan(losses[0]! - 0.2);
    expect(floored).toEqual({});
    const shift = weightShift(full, weights);
    expect(Object.keys(shift)).toHaveLength(7);
    for (const value of Object.values(shift)) expect(value).toBeGreaterThan(0);
    const packed = await paretoqPack(weights);
    expect(packed[up]).toBeInstanceOf(BlockWeight);
    expectClose(await logits(packed), await logits(weights), 1e-3);
  });

  it("refuses shares of steps that are none, and bits that are none", async () => {
    const run = (options: object) =>
      paretoqTrain({ config, weights: fresh(), data: data(), steps: 2, bits: 2, ...options });
    await expect(run({ fpFraction: 1.2 })).rejects.toThrow(
      "the share of steps in full precision, from 0 to 1, not 1.2",
    );
    await expect(run({ fpFraction: -0.1 })).rejects.toThrow("from 0 to 1, not -0.1");
    await expect(run({ bits: 2.5 })).rejects.toThrow("ParetoQ supports 1, 1.58, 2, 3, 4 bits, not 2.5");
  });

  it("counts scales on the floor", async () => {
    const weights = await paretoqConvert(fresh(), { bits: 2 });
    expect(flooredScales(weights)).toEqual({});
    const scale = (weights[up] as FakeQuantized).learned.scale as HostTensor;
    scale.set(0, -1);
    scale.set(3, 1e-5);
    expect(flooredScales(weights)).toEqual({ [up]: 2 });
  });
});

describe("ParetoQ's checkpoints", () => {
  it("come back with their scales", async () => {
    const weights = await paretoqConvert(fresh(), { bits: 3 });
    const tensors = toParetoqCheckpoint(weights);
    expect(tensors["model.layers.0.mlp.up_proj.weight_clip_val"]!.shape).toEqual([32, 1]);
    tensors["model.layers.0.mlp.up_proj.weight_clip_val"]!.set(0, 0.125);
    const back = await fromParetoqCheckpoint(tensors, { bits: 3 });
    expect(((back[up] as FakeQuantized).learned.scale as HostTensor).at(0)).toBe(0.125);
    expect(toParetoqCheckpoint(back)).toEqual(tensors);
  });

  it("are refused without them, and with scales of other matrices", async () => {
    const tensors = toParetoqCheckpoint(await paretoqConvert(fresh(), { bits: 3 }));
    const { "model.layers.0.mlp.up_proj.weight_clip_val": scale, ...rest } = tensors;
    await expect(fromParetoqCheckpoint(rest, { bits: 3 })).rejects.toThrow(
      `the checkpoint has "${up}" without its scales "model.layers.0.mlp.up_proj.weight_clip_val"`,
    );
    const other = { ...tensors, "model.layers.0.mlp.up_proj.weight_clip_val": HostTensor.zeros("f32", [4, 1]) };
    await expect(fromParetoqCheckpoint(other, { bits: 3 })).rejects.toThrow(
      `"${up}" has 32 rows, but scales of [4, 1]`,
    );
    expect(scale!.shape).toEqual([32, 1]);
  });

  it("hold plain tensors only", async () => {
    const packed = await paretoqPack(await paretoqConvert(fresh(), { bits: 2 }));
    expect(() => toParetoqCheckpoint(packed)).toThrow("is blocks; a checkpoint holds plain tensors");
  });
});

describe("what bits cost", () => {
  it("the shift is the share of the weights that moved", async () => {
    const before = {
      w: new Dense(
        HostTensor.from([
          [1, -3],
          [2, 2],
        ]),
      ),
    };
    const converted = await paretoqConvert(before, { bits: { w: 4 } });
    const { how, learned } = converted.w as FakeQuantized;
    const after = {
      w: new FakeQuantized(
        HostTensor.from([
          [1.5, -3],
          [2, 1],
        ]),
        learned,
        how,
      ),
    };
    expect(weightShift(before, after)).toEqual({ w: 1.5 / 8 });
    expect(() => weightShift({}, after)).toThrow('"w" is no dense matrix of the same shape in both models');
  });

  it("counts quantized weights in their bits and the rest in 16", () => {
    expect(effectiveBytes(800, 2, 50)).toBe(300);
    expect(effectiveBytes(800, 1.58, 0)).toBe(158);
  });

  it("the front holds what nothing else dominates", () => {
    const run = (name: string, bytes: number, loss: number) => ({ name, bytes, loss });
    const runs = [run("a", 4, 1), run("b", 2, 3), run("c", 3, 3), run("d", 1, 4), run("e", 4, 2)];
    const front = sizeFront(runs).map(({ name }) => name);
    expect(front).toEqual(["d", "b", "a"]);
    expect(() => sizeFront([run("x", NaN, 1)])).toThrow(
      'the run "x" has NaN bytes and a loss of 1; both must be finite',
    );
  });
});
