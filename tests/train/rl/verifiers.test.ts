import { describe, expect, it } from "vitest";
import { type VerifierName, verifierOf } from "../../../src/train/index.ts";

describe("verifiers", () => {
  it.each<[VerifierName, string, string, number]>([
    ["exact", " Paris", "Paris\n", 1],
    ["exact", "Paris", "Paris.", 0],
    ["number", "1200", "It is 1,200.0 in all.", 1],
    ["number", "1,200", "1200", 1],
    ["number", "2", "5-3 = 2.", 1],
    ["number", "3", "5-3", 1],
    ["number", "-3", "that makes -3", 1],
    ["number", "3", "that makes -3", 0],
    ["number", ".5", "0.50", 1],
    ["number", "1e3", "1000", 1],
    ["number", "8", "8, or rather 9", 0],
    ["number", "8", "none", 0],
    ["regex", "^yes\\b", "yes, it is", 1],
    ["regex", "^yes\\b", "yesterday", 0],
  ])("%s %j judges %j as %d", (name, answer, text, expected) => {
    const judge = verifierOf(name, answer);
    expect([judge(text), judge(text)]).toEqual([expected, expected]);
  });

  it.each<[VerifierName, string, string]>([
    ["number", "eight", 'the answer "eight" is not one number'],
    ["number", "8 or 9", 'the answer "8 or 9" is not one number'],
    ["regex", "(", 'the answer "(" is no regular expression'],
  ])("%s refuses %j as an answer", (name, answer, message) => {
    expect(() => verifierOf(name, answer)).toThrow(message);
  });
});
