import type { HostTensor } from "../tensor/index.ts";
import { compactTriangle, dot, householder } from "./householder.ts";
import { block, type Matrix, matrixOf, place, tensorOf, transposed, zeros } from "./matrix.ts";
import { type Products, withProducts } from "./products.ts";

/** Up to this many columns are reflected one by one. */
const SMALL = 16;

/**
 * The thin QR decomposition of `a` `[m, n]`: `q` `[m, min(m, n)]` with orthonormal columns (whatever the rank of `a`), `r`
 * `[min(m, n), n]` upper triangular with a diagonal that is not negative, `a = q r`. Computed in double precision,
 * returned in the type of `a` (f32 or f64).
 * @throws LinalgError for what is not a finite matrix.
 */
export async function qr(a: HostTensor): Promise<{ q: HostTensor; r: HostTensor }> {
  const m = matrixOf("qr", a);
  const { q, r } = await withProducts((p) => thinQr(p, m));
  return { q: tensorOf(q, a), r: tensorOf(r, a) };
}

export async function thinQr(p: Products, a: Matrix): Promise<{ q: Matrix; r: Matrix }> {
  const rank = Math.min(a.rows, a.cols);
  const { y, t, r: left } = await reflect(p, a.cols === rank ? a : block(a, 0, a.rows, 0, rank));
  const eye = zeros(a.rows, rank);
  for (let i = 0; i < rank; i++) eye.data[i * rank + i] = 1;
  const q = await p.minusT(eye, await p.product(y, t), block(y, 0, rank, 0, rank));
  const r = zeros(rank, a.cols);
  place(r, left, 0, 0);
  if (a.cols > rank) place(r, await p.tProduct(q, block(a, 0, a.rows, rank, a.cols)), 0, rank);
  for (let i = 0; i < rank; i++) {
    if (r.data[i * a.cols + i]! >= 0) continue;
    for (let j = i; j < a.cols; j++) r.data[i * a.cols + j]! *= -1;
    for (let k = 0; k < a.rows; k++) q.data[k * rank + i]! *= -1;
  }
  return { q, r };
}

/** `a = (I - Y T Yᵀ) [R; 0]`. */
interface Reflected {
  readonly y: Matrix;
  readonly t: Matrix;
  readonly r: Matrix;
}

/** Reflects the columns of `a` `[m, n]`, `m >= n`, by halves (Elmroth and Gustavson 2000): nearly all is products. */
async function reflect(p: Products, a: Matrix): Promise<Reflected> {
  const { rows: m, cols: n } = a;
  if (n <= SMALL) return reflectSmall(a);
  const half = n >> 1;
  const left = await reflect(p, block(a, 0, m, 0, half));
  const apart = block(a, 0, m, half, n);
  const along = await p.tProduct(left.t, await p.tProduct(left.y, apart));
  const turned = await p.minus(apart, left.y, along);
  const right = await reflect(p, block(turned, half, m, 0, n - half));
  const [y, t, r] = [zeros(m, n), zeros(n, n), zeros(n, n)];
  place(y, left.y, 0, 0);
  place(y, right.y, half, half);
  const between = await p.tProduct(block(left.y, half, m, 0, half), right.y);
  const corner = await p.minus(zeros(half, n - half), left.t, await p.product(between, right.t));
  place(t, left.t, 0, 0);
  place(t, corner, 0, half);
  place(t, right.t, half, half);
  place(r, left.r, 0, 0);
  place(r, block(turned, 0, half, 0, n - half), 0, half);
  place(r, right.r, half, half);
  return { y, t, r };
}

function reflectSmall(a: Matrix): Reflected {
  const { rows: m, cols: n } = a;
  // Columns as rows, so that each lies in one piece.
  const { data } = transposed(a);
  const [taus, gram, r] = [new Float64Array(n), new Float64Array(n * n), zeros(n, n)];
  for (let j = 0; j < n; j++) {
    const v = data.subarray(j * m, (j + 1) * m);
    for (let i = 0; i < j; i++) r.data[i * n + j] = v[i]!;
    const { tau, beta } = householder(v, j, m);
    v.fill(0, 0, j);
    [taus[j], r.data[j * n + j]] = [tau, beta];
    for (let c = j + 1; c < n; c++) {
      const x = data.subarray(c * m, (c + 1) * m);
      const factor = tau * dot(v, x, j);
      for (let i = j; i < m; i++) x[i]! -= factor * v[i]!;
    }
    for (let i = 0; i < j; i++) gram[i * n + j] = dot(data.subarray(i * m, (i + 1) * m), v, j);
  }
  const y = transposed({ rows: n, cols: m, data });
  return { y, t: { rows: n, cols: n, data: compactTriangle(gram, taus) }, r };
}
