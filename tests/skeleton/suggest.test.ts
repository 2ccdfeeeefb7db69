import { expect, test } from "vitest";
import { didYouMean } from "../../src/tensor/suggest.ts";

const words = ["quantize", "train", "evaluate", "doctor"];

test("slips of the fingers are recognised: a letter too many, missing, wrong, or swapped with its neighbour", () => {
  for (const slip of ["quantizze", "quantie", "quantixe", "qunatize", "QUANTIZE"]) {
    expect(didYouMean(slip, words)).toBe(' (did you mean "quantize"?)');
  }
});

test("the nearest word is chosen", () => {
  expect(didYouMean("trian", ["training", "train"])).toBe(' (did you mean "train"?)');
});

test("nothing is suggested where nothing is near", () => {
  expect(didYouMean("banana", words)).toBe("");
  expect(didYouMean("", words)).toBe("");
  expect(didYouMean("x", [])).toBe("");
});
