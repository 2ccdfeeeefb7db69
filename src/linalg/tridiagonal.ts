import { compactTriangle, dot, householder } from "./householder.ts";
import { block, type Matrix, transposed, zeros } from "./matrix.ts";
import type { Products } from "./products.ts";

/** Columns that are reduced before the rest of the matrix is brought up to date in one product. */
const PANEL = 32;
/** Reflections that are applied to the eigenvectors at a time. */
const GROUP = 256;
/** From this size on a matrix times a vector is worth a call of onnxruntime. */
const LARGE = 192;

/** `A = Q T Qᵀ` with `T` tridiagonal and `Q = H₀ H₁ ...`, `Hₖ = I - tauₖ vₖ vₖᵀ`. */
export interface Tridiagonal {
  /** Of `T`, `[n]`. */
  readonly diagonal: Float64Array;
  /** Beside the diagonal, `[n - 1]`. */
  readonly beside: Float64Array;
  readonly taus: Float64Array;
  /** Row `k` is `vₖ`, zero up to column `k`. */
  readonly reflectors: Matrix;
}

/**
 * Householder reduction of a symmetric matrix by panels (Dongarra, Sorensen and Hammarling 1989): half of the work is one
 * rank-`2 PANEL` product per panel, the other half one matrix-vector product per column, which memory bounds.
 */
export async function tridiagonalize(p: Products, a: Matrix): Promise<Tridiagonal> {
  const n = a.rows;
  const [diagonal, beside, taus] = [new Float64Array(n), new Float64Array(n - 1), new Float64Array(n - 1)];
  const reflectors = zeros(n - 1, n);
  let rest = a;
  for (let first = 0; first < n; first += PANEL) {
    const m = n - first;
    const width = Math.min(PANEL, m);
    // rest - V Wᵀ - W Vᵀ is the matrix after the panel's reflections so far; vectors are rows.
    const [v, w] = [zeros(width, m), zeros(width, m)];
    for (let j = 0; j < width; j++) {
      const column = rest.data.slice(j * m, (j + 1) * m);
      for (let i = 0; i < j; i++) {
        const [vi, wi] = [v.data.subarray(i * m, (i + 1) * m), w.data.subarray(i * m, (i + 1) * m)];
        subtract(column, w.data[i * m + j]!, vi, v.data[i * m + j]!, wi, j);
      }
      diagonal[first + j] = column[j]!;
      if (j === m - 1) break;
      const { tau, beta } = householder(column, j + 1, m);
      [beside[first + j], taus[first + j]] = [beta, tau];
      column.fill(0, 0, j + 1);
      v.data.set(column, j * m);
      reflectors.data.set(column, (first + j) * n + first);
      const product = await timesVector(p, rest, column);
      for (let i = 0; i < j; i++) {
        const [vi, wi] = [v.data.subarray(i * m, (i + 1) * m), w.data.subarray(i * m, (i + 1) * m)];
        const [alongV, alongW] = [dot(vi, column, j + 1), dot(wi, column, j + 1)];
        subtract(product, alongW, vi, alongV, wi, j + 1);
      }
      product.fill(0, 0, j + 1);
      const half = (tau * dot(product, column, j + 1)) / 2;
      for (let i = j + 1; i < m; i++) w.data[j * m + i] = tau * (product[i]! - half * column[i]!);
    }
    if (width < m) rest = await update(p, rest, v, w);
  }
  return { diagonal, beside, taus, reflectors };
}

/** The rows and columns of `rest - V Wᵀ - W Vᵀ` after the panel. */
function update(p: Products, rest: Matrix, v: Matrix, w: Matrix): Promise<Matrix> {
  const { rows: width, cols: m } = v;
  const [vTail, wTail] = [block(v, 0, width, width, m), block(w, 0, width, width, m)];
  const left = transposed(stacked(vTail, wTail));
  return p.minus(block(rest, width, m, width, m), left, stacked(wTail, vTail));
}

function stacked(top: Matrix, bottom: Matrix): Matrix {
  const result = zeros(top.rows + bottom.rows, top.cols);
  result.data.set(top.data);
  result.data.set(bottom.data, top.data.length);
  return result;
}

async function timesVector(p: Products, a: Matrix, x: Float64Array): Promise<Float64Array> {
  const n = a.rows;
  if (n >= LARGE) return (await p.product(a, { rows: n, cols: 1, data: x })).data;
  return Float64Array.from({ length: n }, (_, i) => dot(a.data.subarray(i * n, (i + 1) * n), x, 0));
}

/** `x - a y - b z` in place of `x`, from the index `from` on. */
function subtract(x: Float64Array, a: number, y: Float64Array, b: number, z: Float64Array, from: number): void {
  for (let i = from; i < x.length; i++) x[i]! -= a * y[i]! + b * z[i]!;
}

/** Replaces `z` `[n, n]` by `Q Z`. */
export async function applyReflectors(p: Products, { taus, reflectors }: Tridiagonal, z: Matrix): Promise<void> {
  const n = z.rows;
  for (let first = Math.floor((n - 2) / GROUP) * GROUP; first >= 0; first -= GROUP) {
    const end = Math.min(first + GROUP, n - 1);
    // The first reflection of the group leaves rows up to `first` alone.
    const rows: Matrix = { rows: n - first - 1, cols: z.cols, data: z.data.subarray((first + 1) * z.cols) };
    const yT = block(reflectors, first, end, first + 1, n);
    const gram = await p.productT(yT, yT);
    const t: Matrix = { ...gram, data: compactTriangle(gram.data, taus.subarray(first, end)) };
    const along = await p.product(t, await p.product(yT, rows));
    rows.data.set((await p.minus(rows, transposed(yT), along)).data);
  }
}
