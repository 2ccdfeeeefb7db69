import { describe, expect, it } from "vitest";
import { hypervolume, hypervolumeImprovement, type Objectives, paretoFront } from "../../../src/methods/index.ts";
import { Rng } from "../../../src/tensor/index.ts";

const rng = new Rng(8);
const SIZE = 12;
const random = (count: number): Objectives[] =>
  Array.from({ length: count }, (): Objectives => [rng.integer(SIZE + 3), rng.integer(SIZE + 3)]);
const x = ([first]: Objectives): number => first;
const y = ([, second]: Objectives): number => second;

/** Unit squares below the reference that some point is at least as good as. */
function squares(points: readonly Objectives[], [refX, refY]: Objectives): number {
  let count = 0;
  for (let i = 0; i < refX; i++) for (let j = 0; j < refY; j++) if (points.some(([a, b]) => a <= i && b <= j)) count++;
  return count;
}

describe("paretoFront", () => {
  it("keeps what nothing betters, by brute force", () => {
    for (let trial = 0; trial < 200; trial++) {
      const points = random(1 + rng.integer(10));
      const bettered = ([a, b]: Objectives): boolean => points.some(([c, d]) => c <= a && d <= b && (c < a || d < b));
      const expected = points.filter((point) => !bettered(point));
      const front = paretoFront(points, x, y);
      expect(new Set(front.map(String))).toEqual(new Set(expected.map(String)));
      expect(new Set(front.map(String)).size).toBe(front.length);
      expect(front.map(x)).toEqual(front.map(x).toSorted((a, b) => a - b));
    }
    expect(paretoFront([], x, y)).toEqual([]);
  });
});

describe("hypervolume", () => {
  it("is the number of squares between the points and the reference", () => {
    for (let trial = 0; trial < 300; trial++) {
      const points = random(rng.integer(9));
      expect(hypervolume(points, [SIZE, SIZE])).toBe(squares(points, [SIZE, SIZE]));
    }
  });

  it("is 0 where nothing is better than the reference", () => {
    expect(
      hypervolume(
        [
          [5, 1],
          [1, 5],
        ],
        [5, 5],
      ),
    ).toBe(0);
    expect(hypervolume([], [5, 5])).toBe(0);
  });

  it("grows by the improvement of a point", () => {
    for (let trial = 0; trial < 500; trial++) {
      const points = random(rng.integer(8));
      const [point] = random(1) as [Objectives];
      const reference: Objectives = [SIZE, SIZE];
      const grown = hypervolume([...points, point], reference) - hypervolume(points, reference);
      expect(hypervolumeImprovement(paretoFront(points, x, y), point, reference)).toBe(grown);
    }
  });
});
