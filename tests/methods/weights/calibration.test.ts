import { describe, expect, test } from "vitest";
import {
  calibrationConcern,
  calibrationWindows,
  encodeCalibration,
  meanLoss,
  memorySource,
  streamedLoss,
} from "../../../src/methods/index.ts";
import { HostTensor } from "../../../src/tensor/index.ts";
import { tinyModel, windowedGemma } from "../../generate/models.ts";
import { plainLogits } from "../../models/plain-decoder.ts";
import { randomWindows } from "./methods.ts";

describe("calibration windows", () => {
  const tokens = Array.from({ length: 105 }, (_, i) => i);

  test("are distinct stretches of the text, drawn by the seed", () => {
    const windows = calibrationWindows(tokens, { count: 7, length: 10, seed: 3 });
    expect([windows.dtype, windows.shape]).toEqual(["i64", [7, 10]]);
    const starts = Array.from({ length: 7 }, (_, row) => windows.at(row * 10));
    expect(new Set(starts).size).toBe(7);
    starts.forEach((start, row) => {
      expect(start % 10).toBe(0);
      for (let i = 0; i < 10; i++) expect(windows.at(row * 10 + i)).toBe(start + i);
    });
    expect(calibrationWindows(tokens, { count: 7, length: 10, seed: 3 }).data).toEqual(windows.data);
    expect(calibrationWindows(tokens, { count: 7, length: 10, seed: 4 }).data).not.toEqual(windows.data);
  });

  test("refuse text that is empty or too short, and sizes that are none", () => {
    const take = (from: number[], count: number, length: number) => () => calibrationWindows(from, { count, length });
    expect(take([], 2, 3)).toThrow("the calibration text is empty; 2 windows of 3 tokens take 6 tokens");
    expect(take(tokens, 11, 10)).toThrow(
      "the calibration text has 105 tokens, but 11 windows of 10 tokens take 110 tokens; give more text",
    );
    expect(take(tokens, 0, 10)).toThrow("the count of calibration windows must be a whole number from 1, not 0");
    expect(take(tokens, 1, 2.5)).toThrow("the length of calibration windows must be a whole number from 1, not 2.5");
  });
});

describe("calibration text", () => {
  /** A tokenizer of words that knows some of them. */
  const words = (known: readonly string[]) => ({
    unkId: 0,
    encode: (text: string) =>
      text
        .split(" ")
        .filter(Boolean)
        .map((word) => known.indexOf(word) + 1),
  });
  const announced = (text: string, tokenizer: Parameters<typeof encodeCalibration>[0]): string[] => {
    const said: string[] = [];
    encodeCalibration(tokenizer, text, (message) => said.push(message));
    return said;
  };

  test("that fits its tokenizer is encoded without a word", () => {
    expect(announced("a fox and a hen", words(["a", "fox", "and", "hen"]))).toEqual([]);
  });

  test("of unknown tokens, or of a token for each byte, is announced with the number", () => {
    expect(announced("a fox and a hen", words(["a", "and", "hen"]))).toEqual([
      "20.0 % of the calibration text's tokens are unknown to the tokenizer",
    ]);
    const bytes = { unkId: undefined, encode: (text: string) => Array.from(new TextEncoder().encode(text)) };
    expect(announced("лиса", bytes)).toEqual([
      "the calibration text takes a token for every 1.00 bytes; the tokenizer was made for other text",
    ]);
  });

  test("that is empty is refused", () => {
    expect(() => encodeCalibration(words([]), "")).toThrow("the calibration text is empty");
  });

  test("on which the model does no better than chance is a concern", () => {
    expect(calibrationConcern(3, 4096)).toBe(null);
    expect(calibrationConcern(9.1, 4096)).toBe(
      "the model's loss on the calibration text is 9.10 nats per token, and guessing among 4096 tokens gives 8.32: the text or its tokenizer does not belong to the model",
    );
  });
});

test("the mean loss is that of plain loops", async () => {
  const { config, weights } = tinyModel();
  const windows = randomWindows(config.vocab, 3, 8);
  let total = 0;
  for (let row = 0; row < 3; row++) {
    const ids = Array.from({ length: 8 }, (_, i) => windows.at(row * 8 + i));
    plainLogits(config, weights, ids)
      .slice(0, -1)
      .forEach((logits, i) => {
        const top = Math.max(...logits);
        total += top + Math.log(logits.reduce((s, v) => s + Math.exp(v - top), 0)) - logits[ids[i + 1]!]!;
      });
  }
  expect(await meanLoss({ config, weights }, windows, { threads: 1 })).toBeCloseTo(total / 21, 4);
  await expect(meanLoss({ config, weights }, HostTensor.zeros("i64", [2, 1]))).rejects.toThrow(
    "a loss takes windows of at least two tokens, not [2, 1]",
  );
});

test("the loss of a model that is read layer by layer is that of the whole", async () => {
  for (const changes of [{}, { tie_word_embeddings: true }, windowedGemma]) {
    const model = tinyModel(changes);
    const windows = randomWindows(model.config.vocab, 3, 9);
    const streamed = await streamedLoss(memorySource(model), windows, { threads: 1 });
    expect(streamed).toBeCloseTo(await meanLoss(model, windows, { threads: 1 }), 4);
  }
});
