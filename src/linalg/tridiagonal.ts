import { compactTriangle, dot, householder } from "./householder.ts";
import { block, type Matrix, transposed, zeros } from "./matrix.ts";
import type { Products } from "./products.ts";

/** Columns whose reflections on one another are worked out in loops. */
const PANEL = 32;
/** Columns that are reduced before the rest of the matrix is brought up to date in one product. */
const BLOCK = 256;
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
 * Householder reduction of a symmetric matrix by blocks (Dongarra, Sorensen and Hammarling 1989): half of the work is one
 * product of rank `2 BLOCK` per block, the other half one matrix-vector product per column, which memory bounds. Within
 * a block the matrix stays as it is, because every change of it is written anew; what the panels before have done to it
 * is taken off the few rows and the products that a panel needs.
 */
export async function tridiagonalize(p: Products, a: Matrix): Promise<Tridiagonal> {
  const n = a.rows;
  const [diagonal, beside, taus] = [new Float64Array(n), new Float64Array(n - 1), new Float64Array(n - 1)];
  const reflectors = zeros(n - 1, n);
  let rest = a;
  for (let first = 0; first < n; first += BLOCK) {
    const m = n - first;
    const size = Math.min(BLOCK, m);
    const panel = m < LARGE ? size : PANEL;
    // rest - V Wᵀ - W Vᵀ is the matrix after the block's reflections so far; vectors are rows.
    const [v, w] = [zeros(size, m), zeros(size, m)];
    for (let start = 0; start < size; start += panel) {
      const end = Math.min(start + panel, size);
      const now = new Current(p, rest, block(v, 0, start, 0, m), block(w, 0, start, 0, m));
      const rows = await now.rows(start, end);
      for (let j = start; j < end; j++) {
        const column = rows.data.subarray((j - start) * m, (j - start + 1) * m);
        for (let i = start; i < j; i++) {
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
        const product = await now.times(column);
        for (let i = start; i < j; i++) {
          const [vi, wi] = [v.data.subarray(i * m, (i + 1) * m), w.data.subarray(i * m, (i + 1) * m)];
          const [alongV, alongW] = [dot(vi, column, j + 1), dot(wi, column, j + 1)];
          subtract(product, alongW, vi, alongV, wi, j + 1);
        }
        product.fill(0, 0, j + 1);
        const half = (tau * dot(product, column, j + 1)) / 2;
        for (let i = j + 1; i < m; i++) w.data[j * m + i] = tau * (product[i]! - half * column[i]!);
      }
    }
    if (size < m) rest = await update(p, rest, v, w);
  }
  return { diagonal, beside, taus, reflectors };
}

/** A matrix `rest - V Wᵀ - W Vᵀ` that is not written out. */
class Current {
  readonly #products: Products;
  readonly #rest: Matrix;
  /** `[Vᵀ Wᵀ]` and `[W; V]`, whose product is taken off; null where nothing is. */
  readonly #off: readonly [left: Matrix, right: Matrix] | null;

  /** @param v `[k, n]`, like `w` */
  constructor(products: Products, rest: Matrix, v: Matrix, w: Matrix) {
    this.#products = products;
    this.#rest = rest;
    this.#off = v.rows === 0 ? null : [transposed(stacked(v, w)), stacked(w, v)];
  }

  async rows(from: number, to: number): Promise<Matrix> {
    const rows = block(this.#rest, from, to, 0, this.#rest.cols);
    if (!this.#off) return rows;
    const [left, right] = this.#off;
    return await this.#products.minus(rows, block(left, from, to, 0, left.cols), right);
  }

  async times(vector: Float64Array): Promise<Float64Array> {
    const n = this.#rest.rows;
    const column: Matrix = { rows: n, cols: 1, data: vector };
    if (this.#off) return (await this.#products.productLess(this.#rest, ...this.#off, column)).data;
    if (n >= LARGE) return (await this.#products.product(this.#rest, column)).data;
    return Float64Array.from({ length: n }, (_, i) => dot(this.#rest.data.subarray(i * n, (i + 1) * n), vector, 0));
  }
}

/** The rows and columns of `rest - V Wᵀ - W Vᵀ` after the block. */
function update(p: Products, rest: Matrix, v: Matrix, w: Matrix): Promise<Matrix> {
  const { rows: size, cols: m } = v;
  const [vTail, wTail] = [block(v, 0, size, size, m), block(w, 0, size, size, m)];
  const left = transposed(stacked(vTail, wTail));
  return p.minus(block(rest, size, m, size, m), left, stacked(wTail, vTail));
}

function stacked(top: Matrix, bottom: Matrix): Matrix {
  const result = zeros(top.rows + bottom.rows, top.cols);
  result.data.set(top.data);
  result.data.set(bottom.data, top.data.length);
  return result;
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
