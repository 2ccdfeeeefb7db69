import { HostTensor } from "../tensor/index.ts";
import { LinalgError } from "./errors.ts";

/** Orders that are built from a finite field instead of by doubling: `q + 1` for the prime `q`, `q ≡ 3 (mod 4)`. */
const PALEY: readonly number[] = [12, 20];

/**
 * The Hadamard matrix of order `n`, divided by `sqrt(n)`: `[n, n]` in f32, orthogonal, all entries `±1 / sqrt(n)`. For a
 * power of two it is Sylvester's, in natural (Walsh-Hadamard) order and symmetric; for `12 · 2^k` and `20 · 2^k`, which
 * hidden sizes such as 768 and 2560 are, the Kronecker product of Sylvester's with Paley's first construction (Paley 1933).
 * @throws LinalgError for other orders, naming the nearest ones.
 */
export function hadamard(n: number): HostTensor {
  const base = baseOf("hadamard", n);
  const seed = signs(base);
  const result = HostTensor.zeros("f32", [n, n]);
  const data = result.data as Float32Array;
  const size = 1 / Math.sqrt(n);
  for (let i = 0; i < n; i++)
    for (let j = 0; j < n; j++) {
      const outer = parity(Math.floor(i / base) & Math.floor(j / base)) ? -size : size;
      data[i * n + j] = outer * seed[(i % base) * base + (j % base)]!;
    }
  return result;
}

/**
 * The fast Walsh-Hadamard transform: replaces every row `x` of `x [..., n]` by `x Hᵀ` with `H = hadamard(n)`, in place, with
 * `n log n` additions. Where `n` is a power of two `H` is symmetric, and doing it twice gives back `x`.
 * @param n length of a row.
 * @throws LinalgError for an `n` that has no such matrix here, or that does not divide the length of `x`.
 */
export function fwht(x: Float32Array | Float64Array, n: number = x.length): void {
  const base = baseOf("fwht", n);
  if (x.length % n !== 0) throw new LinalgError(`fwht got ${x.length} numbers, which are no whole rows of ${n}`);
  const seed = signs(base);
  const part = new Float64Array(base);
  const size = 1 / Math.sqrt(n);
  for (let row = 0; row < x.length; row += n) {
    for (let start = row; start < row + n; start += base) {
      for (let i = 0; i < base; i++) {
        let sum = 0;
        for (let j = 0; j < base; j++) sum += seed[i * base + j]! * x[start + j]!;
        part[i] = sum * size;
      }
      x.set(part, start);
    }
    for (let stride = base; stride < n; stride *= 2)
      for (let start = row; start < row + n; start += 2 * stride)
        for (let i = start; i < start + stride; i++) {
          const [a, b] = [x[i]!, x[i + stride]!];
          x[i] = a + b;
          x[i + stride] = a - b;
        }
  }
}

/** The order of the matrix that doubling starts from: 1, 12 or 20. */
function baseOf(operation: string, n: number): number {
  const base = Number.isSafeInteger(n) ? [1, ...PALEY].find((b) => n % b === 0 && isPowerOfTwo(n / b)) : undefined;
  if (base !== undefined) return base;
  const orders = [1, ...PALEY].flatMap((b) => Array.from({ length: 32 }, (_, k) => b * 2 ** k)).sort((a, b) => a - b);
  const above = orders.find((order) => order > n);
  const near = [orders.filter((order) => order < n).at(-1), above].filter((order) => order !== undefined).join(" and ");
  throw new LinalgError(
    `${operation} has orders 2^k, 12 · 2^k and 20 · 2^k, not ${n}${near ? `; the nearest are ${near}` : ""}`,
  );
}

function isPowerOfTwo(n: number): boolean {
  return n >= 1 && n <= 2 ** 31 && 2 ** Math.round(Math.log2(n)) === n;
}

function parity(bits: number): boolean {
  let odd = false;
  for (let rest = bits; rest !== 0; rest &= rest - 1) odd = !odd;
  return odd;
}

/** The `±1` entries of the matrix of order 1, 12 or 20. */
function signs(order: number): Int8Array {
  if (order === 1) return Int8Array.of(1);
  const q = order - 1;
  const squares = new Set(Array.from({ length: q - 1 }, (_, i) => ((i + 1) * (i + 1)) % q));
  // H = I + S, where S borders the residue characters of differences with ones above and minus ones on the left.
  return Int8Array.from({ length: order * order }, (_, at) => {
    const [i, j] = [Math.floor(at / order), at % order];
    if (i === j || i === 0) return 1;
    if (j === 0) return -1;
    return squares.has((j - i + q) % q) ? 1 : -1;
  });
}
