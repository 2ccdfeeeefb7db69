import { describe, expect, it } from "vitest";
import { answerBatch, IGNORED } from "../../src/train/index.ts";

describe("a batch of prompts with answers", () => {
  it("has the answers as targets, one place ahead, and nothing else", () => {
    const { ids, targets } = answerBatch(
      [
        { ids: [5, 6, 7], scored: 1 },
        { ids: [1, 2, 3, 4], scored: 2 },
      ],
      3,
    );
    expect(ids.toArray()).toEqual([5, 6, 0, 1, 2, 3]);
    expect(targets.toArray()).toEqual([IGNORED, 7, IGNORED, IGNORED, 3, 4]);
  });

  it("refuses prompts that do not fit, and answers to nothing", () => {
    expect(() => answerBatch([{ ids: [1, 2, 3, 4], scored: 1 }], 2)).toThrow(
      "a prompt with its answer has 4 tokens; 3 have room",
    );
    expect(() => answerBatch([{ ids: [1, 2], scored: 2 }], 2)).toThrow(
      "of 2 tokens, 2 cannot be the answer to those before",
    );
    expect(() => answerBatch([{ ids: [1, 2], scored: 0 }], 2)).toThrow("0 cannot be the answer");
  });
});
