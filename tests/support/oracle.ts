import { compile } from "../../src/runtime/index.ts";
import { formatShape, HostTensor, isFloat, type Tensor } from "../../src/tensor/index.ts";

/** Numbers in row-major order under a shape: what the plain-loop oracles compute with. */
export interface Grid {
  readonly shape: readonly number[];
  readonly data: readonly number[];
}

export function gridOf(t: HostTensor): Grid {
  return { shape: t.shape, data: t.toArray() };
}

export const scalarGrid = (value: number): Grid => ({ shape: [], data: [value] });

export const sizeOfShape = (shape: readonly number[]): number => shape.reduce((a, b) => a * b, 1);

/** Every index of `shape`, in row-major order. */
export function* indicesOf(shape: readonly number[]): Generator<number[]> {
  for (let k = 0; k < sizeOfShape(shape); k++) yield indexAt(shape, k);
}

function indexAt(shape: readonly number[], k: number): number[] {
  const index: number[] = [];
  let rest = k;
  for (let i = shape.length - 1; i >= 0; i--) {
    index.unshift(rest % shape[i]!);
    rest = Math.floor(rest / shape[i]!);
  }
  return index;
}

/** A grid whose element at every index is `value(index)`. */
export function build(shape: readonly number[], value: (index: number[]) => number): Grid {
  return { shape, data: [...indicesOf(shape)].map(value) };
}

/** Element at `index`; length-1 axes, and axes missing in front, answer for every position. */
export function at({ shape, data }: Grid, index: readonly number[]): number {
  const own = index.slice(index.length - shape.length);
  return data[shape.reduce((place, n, i) => place * n + (n === 1 ? 0 : own[i]!), 0)]!;
}

/** numpy's broadcasting rule, written without looking at the library's. */
export function broadcastOf(...shapes: (readonly number[])[]): number[] {
  const rank = Math.max(0, ...shapes.map((s) => s.length));
  return Array.from({ length: rank }, (_, i) => {
    const sizes = shapes.map((s) => s[s.length - rank + i] ?? 1).filter((n) => n !== 1);
    return sizes[0] ?? 1;
  });
}

/** `f` of the elements that meet when the grids are broadcast. */
export function zip(f: (...values: number[]) => number, ...grids: Grid[]): Grid {
  return build(broadcastOf(...grids.map((g) => g.shape)), (index) => f(...grids.map((g) => at(g, index))));
}

/** `f` of the list of elements along `axes`, in row-major order. */
export function reduce(grid: Grid, axes: readonly number[], keepDims: boolean, f: (values: number[]) => number): Grid {
  const at0 = axes.map((a) => (a < 0 ? a + grid.shape.length : a));
  const kept = build(
    grid.shape.map((n, i) => (at0.includes(i) ? 1 : n)),
    (index) =>
      f(
        [...indicesOf(grid.shape.map((n, i) => (at0.includes(i) ? n : 1)))].map((inner) =>
          at(
            grid,
            index.map((k, i) => (at0.includes(i) ? inner[i]! : k)),
          ),
        ),
      ),
  );
  return keepDims ? kept : { shape: grid.shape.filter((_, i) => !at0.includes(i)), data: kept.data };
}

/** `f` of each list of elements along `axis`, which gives a list of the same length. */
export function scan(grid: Grid, axis: number, f: (values: number[]) => number[]): Grid {
  const at0 = axis < 0 ? axis + grid.shape.length : axis;
  return build(grid.shape, (index) => {
    const line = Array.from({ length: grid.shape[at0]! }, (_, k) => at(grid, index.with(at0, k)));
    return f(line)[index[at0]!]!;
  });
}

/** Einstein summation by looping over every value of every letter. */
export function einsumOf(equation: string, ...grids: Grid[]): Grid {
  const [left, output] = equation.split("->") as [string, string];
  const terms = left.split(",");
  const letters = [...new Set(terms.join(""))];
  const sizes = letters.map((l) => {
    const i = terms.findIndex((t) => t.includes(l));
    return grids[i]!.shape[terms[i]!.indexOf(l)]!;
  });
  const shape = [...output].map((l) => sizes[letters.indexOf(l)]!);
  const sums = Array.from({ length: sizeOfShape(shape) }, () => 0);
  for (const index of indicesOf(sizes)) {
    const where = (term: string): number[] => [...term].map((l) => index[letters.indexOf(l)]!);
    const product = grids.reduce((p, g, i) => p * at(g, where(terms[i]!)), 1);
    const place = where(output).reduce((p, k, i) => p * shape[i]! + k, 0);
    sums[place]! += product;
  }
  return { shape, data: sums };
}

/** Matrix product over the last two axes, leading axes broadcast, vectors as rows or columns. */
export function matmulOf(a: Grid, b: Grid): Grid {
  const left = a.shape.length === 1 ? { ...a, shape: [1, ...a.shape] } : a;
  const right = b.shape.length === 1 ? { ...b, shape: [...b.shape, 1] } : b;
  const inner = left.shape.at(-1)!;
  const batch = broadcastOf(left.shape.slice(0, -2), right.shape.slice(0, -2));
  const product = build([...batch, left.shape.at(-2)!, right.shape.at(-1)!], (index) => {
    const [row, column] = index.slice(-2) as [number, number];
    const front = index.slice(0, -2);
    let total = 0;
    for (let k = 0; k < inner; k++) total += at(left, [...front, row, k]) * at(right, [...front, k, column]);
    return total;
  });
  const shape = [
    ...batch,
    ...(a.shape.length > 1 ? [a.shape.at(-2)!] : []),
    ...(b.shape.length > 1 ? [b.shape.at(-1)!] : []),
  ];
  return { shape, data: product.data };
}

/** Numbers from 0 to 1 that depend on `seed` alone (mulberry32). */
export function randomNumbers(seed: number): () => number {
  let state = seed >>> 0;
  return () => {
    state = (state + 0x6d2b79f5) >>> 0;
    let t = Math.imul(state ^ (state >>> 15), state | 1);
    t ^= t + Math.imul(t ^ (t >>> 7), t | 61);
    return ((t ^ (t >>> 14)) >>> 0) / 2 ** 32;
  };
}

/** An `f64` tensor of numbers from `low` to `high`. */
export function randomTensor(shape: readonly number[], seed: number, low = -2, high = 2): HostTensor {
  const next = randomNumbers(seed);
  const data = Float64Array.from({ length: sizeOfShape(shape) }, () => low + (high - low) * next());
  return new HostTensor("f64", shape, data);
}

/** As `randomTensor`, but all numbers lie at least `gap` apart, in random order: for functions with kinks at ties. */
export function distinctTensor(shape: readonly number[], seed: number, gap = 0.1): HostTensor {
  const next = randomNumbers(seed);
  const size = sizeOfShape(shape);
  const order = Array.from({ length: size }, (_, i) => ({ i, key: next() })).sort((a, b) => a.key - b.key);
  const data = Float64Array.from(order, ({ i }) => (i - (size - 1) / 2 + 0.25) * gap);
  return new HostTensor("f64", shape, data);
}

export interface ForwardCase {
  name: string;
  fn: (...inputs: Tensor[]) => Tensor | readonly Tensor[];
  inputs: readonly HostTensor[];
  /** What the plain loops give for it. */
  expected: Grid | readonly Grid[];
}

/** Runs all cases in one program and compares every output, shape and numbers, with what is expected. */
export async function checkForward(cases: readonly ForwardCase[], tolerance = 1e-12): Promise<void> {
  const inputs = cases.map((c) => c.inputs);
  const program = await compile(
    (all: (readonly Tensor[])[]) => all.map((tensors, i) => [cases[i]!.fn(...tensors)].flat() as Tensor[]),
    [inputs],
    { threads: 1 },
  );
  const results = await program(inputs as never);
  await program.dispose();
  cases.forEach(({ name, expected }, i) => {
    expectGrids(name, results[i] as unknown as HostTensor[], [expected].flat() as Grid[], tolerance);
  });
}

/** @throws Error naming what differs first. */
export function expectGrids(
  name: string,
  got: readonly HostTensor[],
  expected: readonly Grid[],
  tolerance: number,
): void {
  if (got.length !== expected.length) throw new Error(`${name}: ${got.length} outputs instead of ${expected.length}`);
  got.forEach((t, nth) => {
    const want = expected[nth]!;
    if (formatShape(t.shape) !== formatShape(want.shape))
      throw new Error(`${name}: output ${nth} has shape ${formatShape(t.shape)} instead of ${formatShape(want.shape)}`);
    want.data.forEach((value, k) => {
      if (same(t.at(k), value, isFloat(t.dtype) ? tolerance : 0)) return;
      throw new Error(
        `${name}: output ${nth} is ${t.at(k)} instead of ${value} at [${indexAt(want.shape, k).join(", ")}]`,
      );
    });
  });
}

function same(a: number, b: number, tolerance: number): boolean {
  return Object.is(a, b) || a === b || Math.abs(a - b) <= tolerance * Math.max(1, Math.abs(a), Math.abs(b));
}
