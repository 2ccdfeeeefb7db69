import type { HostTensor, Rng } from "../tensor/index.ts";
import { LinalgError } from "./errors.ts";
import { block, largest, type Matrix, matrixOf, scaled } from "./matrix.ts";
import { type Products, withProducts } from "./products.ts";
import { thinQr } from "./qr.ts";
import { decompose, type Factors, type Svd, tensorsOf } from "./svd.ts";

/** Columns beyond the rank that the subspace has, so that it need not hit the wanted one exactly. */
const SPARE = 16;
/** The iteration ends when a step lowers the squared error that is left by less than this part of it. */
const PROGRESS = 1e-4;
/** An error below this part of the matrix, squared, is rounding. */
const ROUNDING = 1e-15;
const MOST_STEPS = 40;

/**
 * The `rank` largest singular values of `a` `[m, n]` with their vectors (`u` `[m, rank]`, `s` `[rank]`, `vt` `[rank, n]`),
 * for a rank that is small against the matrix: a random subspace is multiplied by `a aᵀ` and made orthonormal again until
 * its squared error stops falling by more than 1e-4 of itself (Halko, Martinsson and Tropp 2011, Algorithm 4.4). The
 * rank-`rank` approximation's error, in the Frobenius norm, is then within a percent of the best one's; values that are
 * far from their neighbours are right to rounding.
 * @throws LinalgError for a rank outside of 1 to `min(m, n)`, and for what is not a finite matrix.
 */
export async function truncatedSvd(a: HostTensor, rank: number, rng: Rng): Promise<Svd> {
  const m = matrixOf("truncatedSvd", a);
  const full = Math.min(m.rows, m.cols);
  if (!Number.isInteger(rank) || rank < 1 || rank > full)
    throw new LinalgError(
      `truncatedSvd takes a rank from 1 to ${full} for a [${m.rows}, ${m.cols}] matrix, not ${rank}`,
    );
  const factors = await withProducts((p) =>
    // A subspace of half the matrix costs more than all of it.
    2 * (rank + SPARE) >= full ? decompose(p, m) : iterate(p, m, rank + SPARE, rng),
  );
  return tensorsOf(
    {
      u: block(factors.u, 0, m.rows, 0, rank),
      s: factors.s.slice(0, rank),
      v: block(factors.v, 0, m.cols, 0, rank),
    },
    a,
  );
}

async function iterate(p: Products, a: Matrix, width: number, rng: Rng): Promise<Factors> {
  const size = largest(a) || 1;
  const unit = scaled(a, 1 / size);
  const total = energy(unit);
  const start = rng.normalTensor([a.cols, width], { dtype: "f64" }).data as Float64Array;
  let image = await p.product(unit, { rows: a.cols, cols: width, data: start });
  let before = 0;
  for (let step = 0; ; step++) {
    const { q } = await thinQr(p, image);
    const back = await p.tProduct(unit, q);
    const held = energy(back);
    const left = total - held;
    if (step === MOST_STEPS || left <= ROUNDING * total || held - before <= PROGRESS * left) {
      const { u, s, v } = await decompose(p, back);
      return { u: await p.product(q, v), s: s.map((x) => x * size), v: u };
    }
    before = held;
    image = await p.product(unit, back);
  }
}

/** The sum of squares. */
function energy({ data }: Matrix): number {
  return data.reduce((sum, x) => sum + x * x, 0);
}
