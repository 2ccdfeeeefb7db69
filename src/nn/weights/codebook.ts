import {
  ArgumentError,
  asTensor,
  cast,
  children,
  DTypeError,
  formatShape,
  gather,
  HostTensor,
  type Leaf,
  linear,
  rebuild,
  reshape,
  ShapeError,
  sameShape,
  type Tensor,
  takeAlongAxis,
} from "../../tensor/index.ts";
import { Weight } from "../weight.ts";
import { type BlockFormat, codeBytes, packCodes, unpackTensor } from "./block-format.ts";

/** How codes of so many levels are packed. */
const packings: Readonly<Record<number, BlockFormat>> = { 2: "binary", 3: "ternary", 4: "int2", 8: "int3", 16: "int4" };

export interface CodebookParts {
  /** `u8 [out, bytes of a row's codes]`, packed as the codes of blocks with as many levels are. */
  readonly codes: Leaf;
  /** `f32` or `f16 [sets, levels]` with 2, 3, 4, 8 or 16 levels: a set for the whole matrix, for each row, or for as many blocks of each row. */
  readonly levels: Leaf;
}

/**
 * A matrix whose entries are taken from small sets of levels of any spacing: a code for each entry, and the levels. It
 * saves memory, not time: the matrix is looked up, once when a program is built around it, and multiplied as it is.
 * Evenly spaced levels are faster as blocks.
 */
export class CodebookWeight extends Weight {
  override readonly kind = "codebook";
  override readonly shape: readonly [number, number];
  readonly codes: Leaf;
  readonly levels: Leaf;

  /** @throws ArgumentError, ShapeError, DTypeError for parts that do not belong together. */
  constructor({ codes, levels }: CodebookParts, columns: number) {
    super();
    const [sets, count] = levels.shape as readonly number[];
    const rows = codes.shape[0] as number;
    if (levels.dtype !== "f32" && levels.dtype !== "f16")
      throw new DTypeError(`the levels of a codebook must be f32 or f16, not ${levels.dtype}`);
    const format = packings[count as number];
    if (levels.shape.length !== 2 || !format)
      throw new ShapeError(
        `the levels of a codebook are [sets, ${Object.keys(packings).join(" or ")}], not ${formatShape(levels.shape)}`,
      );
    if (sets !== 1 && (sets! % rows !== 0 || columns % (sets! / rows) !== 0))
      throw new ArgumentError(`${sets} sets of levels do not share out ${rows} rows of ${columns} entries`);
    const want = [rows, codeBytes(format, columns)];
    if (codes.dtype !== "u8") throw new DTypeError(`the codes of a codebook must be u8, not ${codes.dtype}`);
    if (!sameShape(codes.shape, want))
      throw new ShapeError(`the codes of this codebook must be ${formatShape(want)}, not ${formatShape(codes.shape)}`);
    this.shape = [rows, columns];
    this.codes = codes;
    this.levels = levels;
  }

  override get attributes(): Readonly<Record<string, unknown>> {
    return { columns: this.shape[1] };
  }

  override apply(x: Tensor): Tensor {
    return linear(x, cast(this.dense(), x.dtype));
  }

  /** Only the rows asked for are looked up. */
  override rows(ids: Tensor): Tensor {
    const [sets, count] = this.levels.shape as readonly [number, number];
    const [rows, columns] = this.shape;
    const codes = gather(this.codes, ids);
    if (sets === 1) return this.#lookUp(codes, asTensor(this.levels), [...ids.shape, columns], [ids]);
    const own = gather(reshape(asTensor(this.levels), [rows, (sets / rows) * count]), ids);
    return this.#lookUp(codes, reshape(own, [-1, count]), [...ids.shape, columns], [ids]);
  }

  override dense(): Tensor {
    return this.#lookUp(asTensor(this.codes), asTensor(this.levels), this.shape, []);
  }

  #lookUp(codes: Tensor, levels: Tensor, shape: Tensor["shape"], sources: readonly Tensor[]): Tensor {
    const [sets, count] = this.levels.shape as readonly [number, number];
    const columns = this.shape[1];
    const places = unpackTensor(packings[count]!, codes, columns);
    const width = sets === 1 ? columns : columns / (sets / this.shape[0]);
    const table = cast(levels, "f32");
    const found =
      sets === 1
        ? gather(reshape(table, [count]), places)
        : takeAlongAxis(table, cast(reshape(places, [-1, width]), "i64"), 1);
    return reshape(found, shape, sources);
  }

  override [children](): Record<string, Leaf> {
    return { codes: this.codes, levels: this.levels };
  }

  override [rebuild](parts: Record<string, unknown>): CodebookWeight {
    return new CodebookWeight(parts as unknown as CodebookParts, this.shape[1]);
  }
}

export interface CodebookOptions {
  /** Levels in a set: 2, 3, 4, 8 or 16. */
  readonly levels: number;
  /** Sets of levels: 1 for the matrix, its rows, or a multiple of them. */
  readonly sets: number;
}

/** The values of each set, in ascending order, each once. */
export type LevelSets = readonly (readonly number[])[];

/**
 * The different values that a matrix holds in each of `sets` equal parts, ascending.
 * @throws ArgumentError where a part holds more than `levels`, naming it
 */
export function distinctLevels(matrix: HostTensor, { levels, sets }: CodebookOptions): LevelSets {
  const values = matrix.cast("f32").data as Float32Array;
  const width = values.length / sets;
  return Array.from({ length: sets }, (_, s) => {
    const seen = [...new Set(values.subarray(s * width, (s + 1) * width))].sort((a, b) => a - b);
    if (seen.length > levels)
      throw new ArgumentError(
        `part ${s} of ${sets} of the matrix holds ${seen.length} different values, not at most ${levels}: it is not quantized yet`,
      );
    return seen;
  });
}

/**
 * A matrix `[out, in]` that holds few different values, as their codes and levels: exactly the same numbers. A set with
 * fewer values repeats its last.
 * @throws ArgumentError where a set would need more levels, and for NaN
 */
export function toCodebook(matrix: HostTensor, options: CodebookOptions): CodebookWeight {
  const format = packings[options.levels];
  if (!format)
    throw new ArgumentError(`a codebook has ${Object.keys(packings).join(", ")} levels, not ${options.levels}`);
  const [rows, columns] = matrix.shape as readonly [number, number];
  const sets = distinctLevels(matrix, options);
  const width = matrix.size / options.sets;
  const table = HostTensor.zeros("f32", [options.sets, options.levels]);
  sets.forEach((set, s) => {
    for (let k = 0; k < options.levels; k++) table.set(s * options.levels + k, set[Math.min(k, set.length - 1)]!);
  });
  const values = matrix.cast("f32").data as Float32Array;
  const places = sets.map((set) => new Map(set.map((value, k) => [value, k])));
  const codes = Uint8Array.from(values, (value, i) => places[Math.floor(i / width)]!.get(value)!);
  const packed = packCodes(format, codes, columns);
  return new CodebookWeight(
    { codes: HostTensor.from(packed, { shape: [rows, packed.length / rows] }), levels: table },
    columns,
  );
}
