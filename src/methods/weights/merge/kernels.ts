import { assemble, bits, f32x4, f64x2, i32x4, type LoopArray, loop, plain } from "./assembler.ts";

/** What all kernels take a multiple of. */
const STRIDE = 8;

const { and, or, select, narrow, words } = bits;

const widenBfloat = loop("widenBfloat", { step: 8, arrays: { from: 2, to: 4 } }, ({ arrays: { from, to } }) => [
  to.store(i32x4.shl(i32x4.extendLow(from.load()), plain.integer(16))),
  to.store(i32x4.shl(i32x4.extendHigh(from.load()), plain.integer(16)), 16),
]);

/**
 * Moves exponent and fraction of half floats where those of floats are, which are then 2^112 times too small, whether
 * normal or not. What was infinite or no number comes out as 65536 or more and gets the exponent of such.
 */
const widenHalf = loop(
  "widenHalf",
  { step: 4, arrays: { from: 2, to: 4 }, vectors: ["bits", "wide"] },
  ({ arrays: { from, to }, vectors: { bits: half, wide } }) => [
    half.set(i32x4.extendLow(from.loadHalf())),
    wide.set(f32x4.mul(i32x4.shl(and(half.value, i32x4.all(0x7fff)), plain.integer(13)), i32x4.all((127 + 112) << 23))),
    wide.set(or(wide.value, and(f32x4.ge(wide.value, i32x4.all((127 + 16) << 23)), i32x4.all(0x7f800000)))),
    to.store(or(wide.value, i32x4.shl(and(half.value, i32x4.all(0x8000)), plain.integer(16)))),
  ],
);

const pair = (array: LoopArray) => f64x2.promote(array.loadHalf());

/** How often sums are unrolled, so that an addition need not wait for the one before. */
const SUMS = 2;

/** Differences of two arrays; `|to - from|^2`, `|to|^2` and `<from, to>`. */
const update = loop(
  "update",
  {
    step: 2,
    unrolled: SUMS,
    arrays: { from: 4, to: 4, delta: 8 },
    kept: ["difference", "after", "product"],
    vectors: ["a", "b", "d"],
  },
  ({ arrays: { from, to, delta }, kept: { difference, after, product }, vectors: { a, b, d } }) => [
    a.set(pair(from)),
    b.set(pair(to)),
    d.set(f64x2.sub(b.value, a.value)),
    delta.store(d.value),
    difference.set(f64x2.add(difference.value, f64x2.mul(d.value, d.value))),
    after.set(f64x2.add(after.value, f64x2.mul(b.value, b.value))),
    product.set(f64x2.add(product.value, f64x2.mul(a.value, b.value))),
  ],
);

const square = loop(
  "square",
  { step: 2, unrolled: SUMS, arrays: { values: 4 }, kept: ["sum"], vectors: ["a"] },
  ({ arrays: { values }, kept: { sum }, vectors: { a } }) => [
    a.set(pair(values)),
    sum.set(f64x2.add(sum.value, f64x2.mul(a.value, a.value))),
  ],
);

/** `<first, second>`, how many products are not 0, and how many are below. Differences of floats have products of doubles. */
const compare = loop(
  "compare",
  {
    step: 2,
    unrolled: SUMS,
    arrays: { first: 8, second: 8 },
    kept: ["product", "both", "opposite"],
    vectors: ["each"],
  },
  ({ arrays: { first, second }, kept: { product, both, opposite }, vectors: { each } }) => {
    const [zero, one] = [f64x2.all(0), f64x2.all(1)];
    return [
      each.set(f64x2.mul(first.load(), second.load())),
      product.set(f64x2.add(product.value, each.value)),
      both.set(f64x2.add(both.value, and(f64x2.ne(each.value, zero), one))),
      opposite.set(f64x2.add(opposite.value, and(f64x2.lt(each.value, zero), one))),
    ];
  },
);

/** `|result - start|^2` and `|start|^2`. */
const change = loop(
  "change",
  { step: 2, unrolled: SUMS, arrays: { start: 4, result: 8 }, kept: ["difference", "before"], vectors: ["a", "d"] },
  ({ arrays: { start, result }, kept: { difference, before }, vectors: { a, d } }) => [
    a.set(pair(start)),
    d.set(f64x2.sub(result.load(), a.value)),
    difference.set(f64x2.add(difference.value, f64x2.mul(d.value, d.value))),
    before.set(f64x2.add(before.value, f64x2.mul(a.value, a.value))),
  ],
);

const subtractScaled = loop(
  "subtractScaled",
  { step: 2, arrays: { sums: 8, values: 8 }, doubles: ["scale"] },
  ({ arrays: { sums, values }, doubles: { scale } }) => [
    sums.store(f64x2.sub(sums.load(), f64x2.mul(f64x2.splat(scale), values.load()))),
  ],
);

const subtractFrom = loop("subtractFrom", { step: 2, arrays: { start: 4, sums: 8 } }, ({ arrays: { start, sums } }) => [
  sums.store(f64x2.sub(pair(start), sums.load())),
]);

/**
 * Doubles as numbers of 16 bits, the nearest ones, ties to even. Normal ones are rounded by the upper of a double's
 * words, of which all is kept but `cut` bits, and where all that matters of the lower word is whether it is 0. Smaller
 * ones are added to a number `magic` whose last bit is worth as much as theirs, so that the lower word of the sum ends
 * in what is looked for. `bias` is what the exponents of doubles exceed those of the type by. Keeps the largest result.
 */
const cut = loop(
  "cut",
  {
    step: 8,
    arrays: { from: 8, to: 2 },
    doubles: ["magic"],
    integers: ["cut", "bias", "half"],
    kept: ["largest"],
    vectors: ["a", "b", "upper", "exact", "near", "low"],
  },
  ({ arrays: { from, to }, doubles: { magic }, integers, kept: { largest }, vectors }) => {
    const { a, b, upper, exact, near, low } = vectors;
    const one = i32x4.all(1);
    const tiny = (it: typeof a) => f64x2.add(f64x2.abs(it.value), f64x2.splat(magic));
    const four = (offset: number, into: typeof near) => [
      ...a.set(from.load(offset)),
      ...b.set(from.load(offset + 16)),
      ...upper.set(words(a.value, b.value, 1, 3, 5, 7)),
      ...exact.set(
        or(
          i32x4.sub(and(upper.value, i32x4.all(0x7fffffff)), i32x4.splat(integers.bias)),
          and(i32x4.ne(words(a.value, b.value, 0, 2, 4, 6), i32x4.all(0)), one),
        ),
      ),
      ...into.set(
        i32x4.shr(
          i32x4.add(i32x4.add(exact.value, i32x4.splat(integers.half)), and(i32x4.shr(exact.value, integers.cut), one)),
          integers.cut,
        ),
      ),
      ...into.set(select(words(tiny(a), tiny(b), 0, 2, 4, 6), into.value, i32x4.lt(exact.value, i32x4.all(1 << 20)))),
      ...largest.set(i32x4.max(largest.value, into.value)),
      ...into.set(or(into.value, and(i32x4.shr(upper.value, plain.integer(16)), i32x4.all(0x8000)))),
    ];
    return [...[four(0, low), four(32, near)], to.store(narrow(low.value, near.value))];
  },
);

/** Doubles as the nearest floats. Keeps the largest bits without sign. */
const round = loop(
  "round",
  { step: 2, arrays: { from: 8, to: 4 }, kept: ["largest"], vectors: ["a"] },
  ({ arrays: { from, to }, kept: { largest }, vectors: { a } }) => [
    a.set(f32x4.demote(from.load())),
    to.storeHalf(a.value),
    largest.set(i32x4.max(largest.value, and(a.value, i32x4.all(0x7fffffff)))),
  ],
);

const loops = [
  widenBfloat,
  widenHalf,
  update,
  square,
  compare,
  change,
  subtractScaled,
  subtractFrom,
  cut,
  round,
] as const;

let compiled: WebAssembly.Module | undefined;

type Kernel = (...numbers: number[]) => void;
type Numbers = Float32Array | Float64Array | Uint16Array | Int32Array;

interface ArrayType<T> {
  new (buffer: ArrayBuffer, offset: number, length: number): T;
}

/** Lanes that a sum is kept in: what it is, is their total. */
export const LANES = 2 * SUMS;

/**
 * Memory for arrays, with functions that go along them several entries at once. The arrays that a function is given are
 * such of this workspace. Functions go beyond `count` up to a multiple of 8: there, arrays must hold zeros for sums to be
 * right, and get zeros from zeros.
 */
export class Workspace {
  readonly #buffer: ArrayBuffer;
  readonly #kernels: Readonly<Record<string, Kernel>>;
  /** What a function keeps that is no sum. */
  readonly #largest: Int32Array;
  readonly #kept: number;
  #used = 0;

  /** @param bytes of all arrays together, with 64 more for each */
  constructor(bytes: number) {
    const page = 2 ** 16;
    const memory = new WebAssembly.Memory({ initial: Math.ceil((bytes + 64) / page) });
    compiled ??= new WebAssembly.Module(assemble(loops));
    this.#buffer = memory.buffer;
    this.#kernels = new WebAssembly.Instance(compiled, { memory: { bytes: memory } }).exports as Record<string, Kernel>;
    this.#largest = this.bare(Int32Array, 4);
    this.#kept = this.#used;
  }

  /** Takes all arrays back. */
  clear(): void {
    this.#used = this.#kept;
  }

  /** Zeros, at least as many as asked for. @throws RangeError where there is no room left */
  floats(length: number): Float32Array {
    return this.bare(Float32Array, length).fill(0);
  }

  /** Zeros, at least as many as asked for. @throws RangeError where there is no room left */
  doubles(length: number): Float64Array {
    return this.bare(Float64Array, length).fill(0);
  }

  /** An array of anything, a multiple of 8 long. @throws RangeError where there is no room left */
  bare<T extends Numbers>(type: ArrayType<T>, length: number): T {
    const array = new type(this.#buffer, this.#used, STRIDE * Math.ceil(length / STRIDE));
    this.#used += 64 * Math.ceil(array.byteLength / 64);
    return array;
  }

  #run(kernel: string, count: number, arrays: readonly Numbers[], ...more: number[]): void {
    if (count > 0)
      this.#kernels[kernel]!(
        STRIDE * Math.ceil(count / STRIDE),
        ...arrays.map(({ byteOffset }) => byteOffset),
        ...more,
      );
  }

  /** Numbers of 16 bits in single precision. */
  widen(type: "bf16" | "f16", from: Uint16Array, to: Float32Array, count: number): void {
    this.#run(type === "bf16" ? "widenBfloat" : "widenHalf", count, [from, to]);
  }

  /** Adds `|values|^2` to a sum. */
  square(values: Float32Array, count: number, sum: Float64Array): void {
    this.#run("square", count, [values], sum.byteOffset);
  }

  /** `delta = to - from`. Adds `|delta|^2`, `|to|^2` and `<from, to>` to three sums. */
  update(from: Float32Array, to: Float32Array, delta: Float64Array, count: number, sums: Float64Array): void {
    this.#run("update", count, [from, to, delta], sums.byteOffset);
  }

  /**
   * Adds `<first, second>`, the number of products that are not 0, and of those below, to three sums. Products of
   * differences of floats are 0 only where a factor is.
   */
  compare(first: Float64Array, second: Float64Array, count: number, sums: Float64Array): void {
    this.#run("compare", count, [first, second], sums.byteOffset);
  }

  /** Adds `|result - start|^2` and `|start|^2` to two sums. */
  change(start: Float32Array, result: Float64Array, count: number, sums: Float64Array): void {
    this.#run("change", count, [start, result], sums.byteOffset);
  }

  /** `sums -= scale * values` */
  subtractScaled(sums: Float64Array, scale: number, values: Float64Array, count: number): void {
    this.#run("subtractScaled", count, [sums, values], scale);
  }

  /** `sums = start - sums` */
  subtractFrom(start: Float32Array, sums: Float64Array, count: number): void {
    this.#run("subtractFrom", count, [start, sums]);
  }

  /** Rounds to nearest, ties to even, once. @returns whether all numbers fit: none is NaN, and none becomes infinite */
  round(from: Float64Array, type: "f32" | "bf16" | "f16", to: Float32Array | Uint16Array, count: number): boolean {
    this.#largest.fill(0);
    if (type === "f32") this.#run("round", count, [from, to], this.#largest.byteOffset);
    else {
      const { magic, cut, bias } = narrowing[type];
      this.#run("cut", count, [from, to], magic, cut, bias, (1 << (cut - 1)) - 1, this.#largest.byteOffset);
    }
    return Math.max(...this.#largest) < infinity[type];
  }
}

const narrowing = {
  bf16: { magic: 2 ** (52 - 133), cut: 13, bias: (1023 - 127) << 20 },
  f16: { magic: 2 ** (52 - 24), cut: 10, bias: (1023 - 15) << 20 },
} as const;

/** The bits of infinity. */
const infinity = { f32: 0x7f800000, bf16: 0x7f80, f16: 0x7c00 } as const;
