import { describe, expect, test } from "vitest";
import { decodeSpeeds, llamaOfSize, packedDecodeSpeeds, roundedMatrices, size100m } from "../../src/evaluate/index.ts";
import { decoderConfig, decoderShapes, initDecoder } from "../../src/models/index.ts";
import { BlockWeight, type Weight } from "../../src/nn/index.ts";
import { openSessions } from "../../src/runtime/index.ts";
import { Rng } from "../../src/tensor/index.ts";

const small = { dim: 64, layers: 2, heads: 4, kvHeads: 2, ffn: 96, vocab: 50 };

describe("speed of decoding", () => {
  test("is of a model with 100 million weights", () => {
    const shapes = decoderShapes(decoderConfig({ ...llamaOfSize(size100m, 64) }));
    let weights = 0;
    for (const shape of shapes.values()) weights += shape.reduce((a, b) => a * b);
    expect(weights / 1e6).toBeCloseTo(100.1, 1);
  });

  test("rounds every matrix, and no norm", () => {
    const weights = initDecoder(decoderConfig({ ...llamaOfSize(small, 64) }), new Rng(0));
    const rounded = roundedMatrices(weights, { format: "int4", block: 32 });
    for (const [name, weight] of Object.entries(rounded))
      expect(weight instanceof BlockWeight, name).toBe((weight as Weight).shape.length === 2);
  });

  test("is measured of each representation, and no session is left open", async () => {
    const before = openSessions();
    const { f32, int4 } = await packedDecodeSpeeds(small, { context: 4, tokens: 2, turns: 2, threads: 1 });
    for (const speed of [f32, int4]) expect(speed).toBeGreaterThan(0);
    expect(openSessions()).toBe(before);
    const config = decoderConfig({ ...llamaOfSize(small, 4) });
    const weights = initDecoder(config, new Rng(0));
    // The context takes all positions that the model has.
    await expect(decodeSpeeds(config, { f32: weights }, { context: 4, threads: 1 })).rejects.toThrow("4");
    const stopped = { signal: AbortSignal.abort(new Error("stopped")) };
    await expect(decodeSpeeds(config, { f32: weights }, stopped)).rejects.toThrow("stopped");
    expect(openSessions()).toBe(before);
  });
});
