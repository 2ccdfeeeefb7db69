import { describe, expect, test } from "vitest";
import { answerF1, matchAnswer, mentions, normalizeAnswer } from "../../../src/evaluate/index.ts";

describe("answers", () => {
  test("are compared without case, articles and punctuation", () => {
    expect(normalizeAnswer("  The_Lord of the  Rings!")).toBe("lord of rings");
    expect(normalizeAnswer("“An apple” — a day, theory")).toBe("apple day theory");
    expect(normalizeAnswer("the a an")).toBe("");
  });

  test("match where one is part of the other", () => {
    expect(matchAnswer("It was Paris, France", ["Paris"])).toEqual({ contains: true, equal: false, f1: 0.4 });
    expect(matchAnswer("the Paris", ["London", "Paris"])).toEqual({ contains: true, equal: true, f1: 1 });
    expect(matchAnswer("Rome", ["Paris"])).toEqual({ contains: false, equal: false, f1: 0 });
  });

  test("never match when they are empty: the empty text is part of every other", () => {
    for (const nothing of ["", " ", "The", "...!"])
      expect(matchAnswer(nothing, ["Paris"])).toEqual({ contains: false, equal: false, f1: 0 });
    expect(matchAnswer("Paris", ["the", ""]).contains).toBe(false);
    expect(mentions("Paris", ["", " "])).toBe(false);
  });

  test("share words, each counted as often as both have it", () => {
    // Two of three said, two of four right: precision 2/3, recall 1/2.
    expect(answerF1("red red blue", ["red blue green red2"])).toBeCloseTo((2 * (2 / 3) * (1 / 2)) / (2 / 3 + 1 / 2));
    expect(answerF1("x", [])).toBe(0);
    expect(answerF1("one two", ["three", "two one"])).toBe(1);
  });

  test("of facts are mentioned, case and spaces aside", () => {
    expect(mentions("it is new YORK city", ["NewYork"])).toBe(true);
    expect(mentions("it is york", ["New York"])).toBe(false);
  });
});
