/** Those of `points` that no other betters in one coordinate without being worse in the other, by `x`; smaller is better. */
export function paretoFront<T>(points: readonly T[], x: (point: T) => number, y: (point: T) => number): T[] {
  const sorted = [...points].sort((a, b) => x(a) - x(b) || y(a) - y(b));
  const front: T[] = [];
  for (const point of sorted) if (front.length === 0 || y(point) < y(front.at(-1)!)) front.push(point);
  return front;
}

/** Two numbers that are both to be small. */
export type Objectives = readonly [number, number];

/**
 * Area between a front and a reference point, both coordinates to be small: what is worse than some point and better than
 * the reference. Points that are not better than the reference in both add nothing, so that it may be 0.
 */
export function hypervolume(points: readonly Objectives[], [refX, refY]: Objectives): number {
  const inside = points.filter(([x, y]) => x < refX && y < refY);
  const front = paretoFront(
    inside,
    ([x]) => x,
    ([, y]) => y,
  );
  return front.reduce((area, [x, y], i) => area + ((front[i + 1]?.[0] ?? refX) - x) * (refY - y), 0);
}

/**
 * What a further point adds to the hypervolume of a front.
 * @param front as `paretoFront` returns it, by its first coordinate
 */
export function hypervolumeImprovement(
  front: readonly Objectives[],
  [x, y]: Objectives,
  [refX, refY]: Objectives,
): number {
  if (!(x < refX && y < refY)) return 0;
  // The height of the front above the new point is a staircase that only goes down.
  let height = refY;
  let [area, at] = [0, x];
  for (const [nextX, nextY] of front) {
    if (nextX > at) {
      if (height <= y || nextX >= refX) break;
      area += (nextX - at) * (height - y);
      at = nextX;
    }
    height = Math.min(height, nextY);
  }
  return height > y ? area + Math.max(0, refX - at) * (height - y) : area;
}
