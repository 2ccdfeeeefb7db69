import { cholesky, choleskyInverse, choleskyOfInverse, eigh, qr, svd } from "../src/linalg/index.ts";
import { compile } from "../src/runtime/index.ts";
import { add, HostTensor, matmul, mul, Rng, transpose } from "../src/tensor/index.ts";
import { type Command, UsageError } from "./command.ts";
import { heading, loadAverages, machine } from "./report.ts";

/** A decomposition of a matrix of its kind, and factors whose product is that matrix (or its inverse's inverse). */
interface Work {
  readonly kind: "any" | "symmetric" | "positive definite";
  /** Returns the factors that the matrix is the product of, or is undone by. */
  run(a: HostTensor): Promise<Factors>;
}

type Factors = { readonly product: readonly Factor[] } | { readonly inverse: readonly Factor[] };
type Factor = HostTensor | { readonly transposed: HostTensor } | { readonly diagonal: HostTensor };

const works: Readonly<Record<string, Work>> = {
  cholesky: {
    kind: "positive definite",
    run: async (a) => {
      const l = await cholesky(a);
      return { product: [l, { transposed: l }] };
    },
  },
  choleskyInverse: {
    kind: "positive definite",
    run: async (a) => ({ inverse: [await choleskyInverse(a)] }),
  },
  choleskyOfInverse: {
    kind: "positive definite",
    run: async (a) => {
      const u = await choleskyOfInverse(a);
      return { inverse: [{ transposed: u }, u] };
    },
  },
  qr: {
    kind: "any",
    run: async (a) => {
      const { q, r } = await qr(a);
      return { product: [q, r] };
    },
  },
  eigh: {
    kind: "symmetric",
    run: async (a) => {
      const { values, vectors } = await eigh(a);
      return { product: [vectors, { diagonal: values }, { transposed: vectors }] };
    },
  },
  svd: {
    kind: "any",
    run: async (a) => {
      const { u, s, vt } = await svd(a);
      return { product: [u, { diagonal: s }, vt] };
    },
  },
};

/** The largest relative error of a decomposition, stored in f32, that counts as one. */
const tolerance = 1e-4;

/** What the decompositions of `src/linalg` take, each run once for every round on a matrix of normal numbers in f32. */
export const linalg: Command = {
  options: { size: "1024", functions: Object.keys(works).join(",") },
  async run({ rounds, options, log }) {
    const size = Number(options.size);
    if (!Number.isInteger(size) || size < 1)
      throw new UsageError(`--size takes a whole number from 1, not ${options.size}`);
    const load = loadAverages();
    const result: Record<string, { seconds: number; cpuSeconds: number; error: number }> = {};
    for (const name of options.functions!.split(",")) {
      const work = Object.hasOwn(works, name) ? works[name]! : undefined;
      if (!work) throw new UsageError(`--functions takes names of ${Object.keys(works).join(", ")}, not "${name}"`);
      const a = await matrix(work.kind, size);
      for (let round = 0; round < rounds; round++) {
        const began = performance.now();
        const before = process.cpuUsage();
        const factors = await work.run(a);
        const { user, system } = process.cpuUsage(before);
        const seconds = (performance.now() - began) / 1000;
        const cpuSeconds = (user + system) / 1e6;
        const error = errorOf(a, factors);
        if (!(error < tolerance)) throw new Error(`${name} is off by ${error}`);
        log(
          `${name}: ${seconds.toFixed(1)} s, ${cpuSeconds.toFixed(1)} s of processor time, error ${error.toExponential(1)}`,
        );
        if (cpuSeconds < (result[name]?.cpuSeconds ?? Infinity)) result[name] = { seconds, cpuSeconds, error };
      }
    }
    const rows = Object.entries(result).map(
      ([name, { seconds, cpuSeconds, error }]) =>
        `${name.padEnd(20)}${seconds.toFixed(1).padStart(9)} s${cpuSeconds.toFixed(1).padStart(11)} s${error.toExponential(1).padStart(11)}`,
    );
    return {
      result: { name: "linalg", machine: machine(), load, size, functions: result },
      text: [
        ...heading(`linalg, ${size} x ${size}`, machine(), load),
        "",
        `${"".padEnd(20)}  on the clock    processor      error`,
        ...rows,
      ].join("\n"),
    };
  },
};

async function matrix(kind: Work["kind"], size: number): Promise<HostTensor> {
  const a = new Rng(0).normalTensor([size, size]);
  if (kind === "any") return a;
  const eye = HostTensor.zeros("f32", [size, size]);
  for (let i = 0; i < size; i++) eye.set(i * size + i, 1);
  await using program = await compile(
    (x, one) => (kind === "symmetric" ? add(x, transpose(x)) : add(mul(matmul(x, transpose(x)), 1 / size), one)),
    [a, eye] as const,
  );
  return await program(a, eye);
}

/** How far a decomposition is off: its matrix times a vector against the factors times it, relative to their length. */
function errorOf(a: HostTensor, factors: Factors): number {
  const probe = new Rng(1).normalTensor([a.shape[1]!], { dtype: "f64" }).data as Float64Array;
  const through = (x: Float64Array, all: readonly Factor[]) => all.reduceRight(times, x);
  const [actual, expected] =
    "product" in factors
      ? [through(probe, factors.product), times(probe, a)]
      : [through(times(probe, a), factors.inverse), probe];
  let [off, whole] = [0, 0];
  for (let i = 0; i < expected.length; i++) {
    off += (actual[i]! - expected[i]!) ** 2;
    whole += expected[i]! ** 2;
  }
  return Math.sqrt(off / whole);
}

function times(x: Float64Array, factor: Factor): Float64Array {
  if ("diagonal" in factor) return x.map((v, i) => v * factor.diagonal.at(i));
  const flipped = "transposed" in factor;
  const { shape, data } = flipped ? factor.transposed : factor;
  const [rows, cols] = shape as [number, number];
  const result = new Float64Array(flipped ? cols : rows);
  for (let r = 0, i = 0; r < rows; r++)
    for (let c = 0; c < cols; c++, i++) {
      const entry = data[i] as number;
      if (flipped) result[c]! += entry * x[r]!;
      else result[r]! += entry * x[c]!;
    }
  return result;
}
