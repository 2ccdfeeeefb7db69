import { describe, expect, it } from "vitest";
import { histogramOf } from "../../src/report/index.ts";

describe("histogramOf", () => {
  it("counts every value once, zero in a bin of its own middle", () => {
    const { edges, counts } = histogramOf("w", { a: [-2, 0, 0.01, 2], b: [9, -9, 0] });
    expect(edges[0]).toBe(-2);
    expect(edges.at(-1)).toBeCloseTo(2, 12);
    const middle = (edges.length - 2) / 2;
    expect(counts.a![middle]).toBe(2);
    expect(counts.a!.reduce((x, y) => x + y)).toBe(4);
    expect([counts.b![0], counts.b!.at(-1)]).toEqual([1, 1]);
  });
  it("takes a set of nothing but zeros", () => {
    expect(histogramOf("w", { a: [0, 0] }).counts.a!.reduce((x, y) => x + y)).toBe(2);
  });
});
