import fc from "fast-check";
import { describe, expect, it } from "vitest";
import { histogramOf, paretoFront } from "../../src/report/index.ts";

describe("paretoFront", () => {
  it("keeps exactly those that nothing betters", () => {
    const point = fc.record({ x: fc.integer({ min: 0, max: 6 }), y: fc.integer({ min: 0, max: 6 }) });
    fc.assert(
      fc.property(fc.array(point, { maxLength: 12 }), (points) => {
        const front = paretoFront(
          points,
          (p) => p.x,
          (p) => p.y,
        );
        const betters = (a: (typeof front)[0], b: (typeof front)[0]) =>
          a.x <= b.x && a.y <= b.y && (a.x < b.x || a.y < b.y);
        for (const p of front) expect(points.some((q) => betters(q, p))).toBe(false);
        for (const p of points)
          if (!points.some((q) => betters(q, p))) expect(front.some((q) => q.x === p.x && q.y === p.y)).toBe(true);
      }),
    );
  });
});

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
