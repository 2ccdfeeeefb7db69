/** A root, kept as its distance from the nearer pole: the distances to all poles are exact that way. */
export interface Root {
  /** Index of the pole. */
  readonly origin: number;
  readonly offset: number;
}

/**
 * Root `index` (from 0, ascending) of the secular equation `1 + rho Σ zᵢ² / (dᵢ - x) = 0`, which lies between `d[index]`
 * and the next pole (for the last one `rho ‖z‖²` further). The poles `d` ascend strictly, no `zᵢ` is zero, `rho > 0`.
 * Rational interpolation at both poles (the middle way of Li 1993, LAPACK working note 89), kept inside of a bracket.
 */
export function secularRoot(d: Float64Array, z: Float64Array, rho: number, index: number): Root {
  const n = d.length;
  const last = index === n - 1;
  const poleSum = (origin: number, x: number, from: number, to: number): { f: number; slope: number } => {
    let [f, slope] = [0, 0];
    for (let i = from; i < to; i++) {
      const ratio = z[i]! / (d[i]! - d[origin]! - x);
      f += z[i]! * ratio;
      slope += ratio * ratio;
    }
    return { f: rho * f, slope: rho * slope };
  };
  const width = last ? rho * z.reduce((sum, x) => sum + x * x, 0) : d[index + 1]! - d[index]!;
  let origin = index;
  let [low, high] = [0, width];
  if (!last) {
    const middle = 1 + poleSum(index, width / 2, 0, n).f;
    if (middle < 0) [origin, low, high] = [index + 1, -width / 2, 0];
    else high = width / 2;
  }
  let x = (low + high) / 2;
  // Interpolation takes about six steps; a step that does not halve the bracket often enough is followed by a bisection.
  for (let step = 0, checked = high - low; step < 200; step++) {
    const below = poleSum(origin, x, 0, index + 1);
    const above = poleSum(origin, x, index + 1, n);
    const f = 1 + below.f + above.f;
    if (f < 0) low = x;
    else high = x;
    if (Math.abs(f) <= 2 * Number.EPSILON * n * (1 + Math.abs(below.f) + Math.abs(above.f))) break;
    if (step % 4 === 3) {
      if (high - low > checked / 2) {
        x = (low + high) / 2;
        continue;
      }
      checked = high - low;
    }
    const left = d[index]! - d[origin]! - x;
    const right = last ? 0 : d[index + 1]! - d[origin]! - x;
    let next = x;
    if (last) next = x + left + (below.slope * left * left) / (f - below.slope * left);
    else {
      const a = (left + right) * f - left * right * (below.slope + above.slope);
      const b = left * right * f;
      const c = f - left * below.slope - right * above.slope;
      const root = Math.sqrt(Math.max(0, a * a - 4 * b * c));
      next = x + (a <= 0 ? (a - root) / (2 * c) : (2 * b) / (a + root));
    }
    if (!(next > low && next < high)) next = (low + high) / 2;
    if (next === x || next === low || next === high) break;
    x = next;
  }
  return { origin, offset: x };
}
