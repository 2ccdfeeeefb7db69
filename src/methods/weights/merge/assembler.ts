/**
 * Just enough of an assembler for WebAssembly's 128-bit vectors: functions that are one loop along arrays in memory.
 * Opcodes are those of the core specification, release 2.0, section 5.4: https://www.w3.org/TR/wasm-core-2/
 */

/** Instructions that leave one value on the stack, or none. */
export type Code = readonly number[];

/** A number in as few bytes as it needs, seven bits each, least first (LEB128). */
function unsigned(value: number): number[] {
  const bytes: number[] = [];
  for (; value > 0x7f; value >>>= 7) bytes.push((value & 0x7f) | 0x80);
  return [...bytes, value];
}

/** The same for a number with a sign, of 32 bits. */
function signed(value: number): number[] {
  const bytes: number[] = [];
  for (; value < -64 || value > 63; value >>= 7) bytes.push((value & 0x7f) | 0x80);
  return [...bytes, value & 0x7f];
}

const vector = (opcode: number, ...operands: Code[]): Code => [...operands.flat(), 0xfd, ...unsigned(opcode)];
const get = (local: number): Code => [0x20, ...unsigned(local)];
const set = (local: number, value: Code): Code => [...value, 0x21, ...unsigned(local)];
const integer = (value: number): Code => [0x41, ...signed(value | 0)];
const increased = (value: Code, by: number): Code => [...value, ...integer(by), 0x6a];

const unary = (opcode: number) => (a: Code) => vector(opcode, a);
const binary = (opcode: number) => (a: Code, b: Code) => vector(opcode, a, b);
/** All lanes by as many bits as a plain integer says. */
const shift = (opcode: number) => (a: Code, bits: Code) => vector(opcode, a, bits);

/** Operations on vectors of four integers. */
export const i32x4 = {
  splat: unary(17),
  all: (value: number) => vector(17, integer(value)),
  ne: binary(56),
  lt: binary(57),
  shl: shift(171),
  shr: shift(173),
  add: binary(174),
  sub: binary(177),
  max: binary(184),
  /** The lower and the upper four of eight 16-bit numbers without sign. */
  extendLow: unary(169),
  extendHigh: unary(170),
};

export const f32x4 = {
  ge: binary(70),
  mul: binary(230),
  /** Two doubles rounded, and two zeros. */
  demote: unary(94),
};

export const f64x2 = {
  splat: unary(20),
  all: (value: number) => vector(20, [0x44, ...new Uint8Array(Float64Array.of(value).buffer)]),
  ne: binary(72),
  lt: binary(73),
  abs: unary(236),
  add: binary(240),
  sub: binary(241),
  mul: binary(242),
  /** The lower two of four floats. */
  promote: unary(95),
};

export const bits = {
  and: binary(78),
  or: binary(80),
  /** Where the bits of `mask` are 1 those of `a`, elsewhere those of `b`. */
  select: (a: Code, b: Code, mask: Code) => vector(82, a, b, mask),
  /** Of two vectors, their 16-bit lanes from eight integers; above 65535 they stay there. */
  narrow: binary(134),
  /** Four of the eight words of two vectors, by number. */
  words: (a: Code, b: Code, ...numbers: readonly [number, number, number, number]): Code => [
    ...vector(13, a, b),
    ...numbers.flatMap((word) => [0, 1, 2, 3].map((byte) => 4 * word + byte)),
  ],
};

export const plain = { integer };

/** An array that a loop goes along. */
export interface LoopArray {
  /** 16 bytes, so many behind where the loop is. */
  load(offset?: number): Code;
  /** The lower 8 bytes of a vector, with zeros above them. */
  loadHalf(offset?: number): Code;
  store(value: Code, offset?: number): Code;
  storeHalf(value: Code, offset?: number): Code;
}

export interface LoopVariable {
  readonly value: Code;
  set(value: Code): Code;
}

type Named<K extends string, T> = { readonly [key in K]: T };

/** What the code of a loop is made of. */
export interface LoopParts<A extends string, F extends string, I extends string, S extends string, V extends string> {
  readonly arrays: Named<A, LoopArray>;
  /** Arguments: doubles and integers. */
  readonly doubles: Named<F, Code>;
  readonly integers: Named<I, Code>;
  /** Vectors that are kept from turn to turn. */
  readonly kept: Named<S, LoopVariable>;
  /** Vectors for use within a turn. */
  readonly vectors: Named<V, LoopVariable>;
}

export interface LoopShape<A extends string, F extends string, I extends string, S extends string, V extends string> {
  /** Entries of each array that the code takes. */
  readonly step: number;
  /** How often the code stands in a turn, one step further each time, with vectors to keep of its own. Default 1. */
  readonly unrolled?: number;
  /** Bytes of an entry of each array. */
  readonly arrays: Named<A, number>;
  readonly doubles?: readonly F[];
  readonly integers?: readonly I[];
  readonly kept?: readonly S[];
  readonly vectors?: readonly V[];
}

/** A function that is a loop. */
export interface Loop {
  readonly name: string;
  readonly parameters: Code;
  readonly body: Code;
}

const I32 = 0x7f;
const F64 = 0x7c;
const V128 = 0x7b;
const VECTOR_BYTES = 16;

/**
 * A function of the number of entries (a multiple of what a turn takes, above 0), the addresses of the arrays, the doubles, the
 * integers and, where something is kept, the address of vectors that hold it before and after, in the order given, those
 * of one name one behind the other.
 */
export function loop<
  A extends string,
  F extends string = never,
  I extends string = never,
  S extends string = never,
  V extends string = never,
>(name: string, shape: LoopShape<A, F, I, S, V>, code: (parts: LoopParts<A, F, I, S, V>) => readonly Code[]): Loop {
  const { step, unrolled = 1, arrays, doubles = [], integers = [], kept = [], vectors = [] } = shape;
  let locals = 0;
  const named = <K extends string, T>(names: readonly K[], make: (local: number) => T): Named<K, T> =>
    Object.fromEntries(names.map((key) => [key, make(locals++)])) as Named<K, T>;
  const variable = (local: number): LoopVariable => ({ value: get(local), set: (value) => set(local, value) });
  const count = locals++;
  const places = named(Object.keys(arrays) as A[], (local) => local);
  const numbers = { doubles: named(doubles, get), integers: named(integers, get) };
  const memory = kept.length > 0 ? locals++ : -1;
  const parameters = [
    ...[count, ...Object.keys(arrays)].map(() => I32),
    ...doubles.map(() => F64),
    ...integers.map(() => I32),
    ...kept.slice(0, 1).map(() => I32),
  ];
  const temporaries = named(vectors, variable);
  const keptOnes = kept.map((key) => ({ key, each: Array.from({ length: unrolled }, () => variable(locals++)) }));
  const held = array(memory, 0);
  const inMemory = keptOnes.flatMap(({ each }) => each).map((it, i) => ({ it, offset: VECTOR_BYTES * i }));
  const turn = Array.from({ length: unrolled }, (_, i) =>
    code({
      ...numbers,
      arrays: Object.fromEntries(
        Object.entries<number>(places).map(([key, local]) => [key, array(local, i * step * arrays[key as A])]),
      ) as Named<A, LoopArray>,
      kept: Object.fromEntries(keptOnes.map(({ key, each }) => [key, each[i]!])) as Named<S, LoopVariable>,
      vectors: temporaries,
    }),
  ).flat();
  const entries = step * unrolled;
  const body = [
    ...inMemory.map(({ it, offset }) => it.set(held.load(offset))),
    [0x03, 0x40],
    ...turn,
    ...Object.entries<number>(places).map(([key, local]) =>
      set(local, increased(get(local), entries * arrays[key as A])),
    ),
    [...increased(get(count), -entries), 0x22, ...unsigned(count), 0x0d, 0, 0x0b],
    ...inMemory.map(({ it, offset }) => held.store(it.value, offset)),
  ].flat();
  const extra = inMemory.length + vectors.length;
  const declared = extra > 0 ? [1, ...unsigned(extra), V128] : [0];
  return { name, parameters, body: [...declared, ...body, 0x0b] };
}

function array(local: number, from: number): LoopArray {
  // The exponent of the alignment, and the offset.
  const place = (alignment: number, offset: number): number[] => [alignment, ...unsigned(from + offset)];
  return {
    load: (offset = 0) => [...vector(0, get(local)), ...place(4, offset)],
    loadHalf: (offset = 0) => [...vector(93, get(local)), ...place(3, offset)],
    store: (value, offset = 0) => [...vector(11, get(local), value), ...place(4, offset)],
    storeHalf: (value, offset = 0) => [...vector(91, get(local), value), ...place(3, offset), 0],
  };
}

/** A module that exports loops and works on memory that it imports as `memory.bytes`. */
export function assemble(loops: readonly Loop[]): Uint8Array<ArrayBuffer> {
  const list = (items: readonly Code[]): number[] => [...unsigned(items.length), ...items.flat()];
  const sized = (bytes: Code): number[] => [...unsigned(bytes.length), ...bytes];
  const text = (name: string): number[] => sized([...new TextEncoder().encode(name)]);
  const section = (id: number, content: Code): number[] => [id, ...sized(content)];
  return Uint8Array.from([
    ...[0, 0x61, 0x73, 0x6d, 1, 0, 0, 0],
    ...section(1, list(loops.map(({ parameters }) => [0x60, ...sized(parameters), 0]))),
    ...section(2, list([[...text("memory"), ...text("bytes"), 2, 0, 1]])),
    ...section(3, list(loops.map((_, i) => unsigned(i)))),
    ...section(7, list(loops.map(({ name }, i) => [...text(name), 0, ...unsigned(i)]))),
    ...section(10, list(loops.map(({ body }) => sized(body)))),
  ]);
}
