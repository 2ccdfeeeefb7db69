import { ArgumentError, HostTensor, ShapeError } from "../../tensor/index.ts";
import { firstOfRows, packCodes, unpackCodes } from "./block-format.ts";
import { BlockWeight } from "./blocks.ts";

/**
 * The tensors of one weight under the `pack-quantized` convention of the compressed-tensors format, which vLLM and
 * transformers read, by the ends of their names.
 */
export interface PackedTensors {
  /** `i32 [out, in * bits / 32 rounded up]`: codes with the middle of the range added, low bits first. */
  readonly weight_packed: HostTensor;
  /** `[out, groups]`. */
  readonly weight_scale: HostTensor;
  /** `i32 [out * bits / 32 rounded up, groups]`, packed down the columns; absent where symmetric. */
  readonly weight_zero_point?: HostTensor;
  /** `i64 [2]`: out and in. */
  readonly weight_shape: HostTensor;
}

const bitsOf = { int4: 4, int8: 8 } as const;

/** Types and shapes of what `toPackQuantized` makes of a weight, with or without numbers. */
export function packedShapes({ format, block, shape: [rows, columns], scales, zeroPoints }: BlockWeight): {
  readonly [K in keyof PackedTensors]: Pick<HostTensor, "dtype" | "shape">;
} {
  const bits = format === "int8" ? 8 : 4;
  const words = (n: number): number => Math.ceil((n * bits) / 32);
  return {
    weight_packed: { dtype: "i32", shape: [rows, words(columns)] },
    weight_scale: { dtype: scales.dtype, shape: scales.shape as readonly number[] },
    ...(zeroPoints && { weight_zero_point: { dtype: "i32", shape: [words(rows), Math.ceil(columns / block)] } }),
    weight_shape: { dtype: "i64", shape: [2] },
  };
}

/** @throws ArgumentError for what the convention has no place for. */
export function toPackQuantized(weight: BlockWeight): PackedTensors {
  const { format, block, codes, scales, zeroPoints } = weight;
  if (format !== "int4" && format !== "int8")
    throw new ArgumentError(`pack-quantized files hold int4 and int8 blocks, not ${format}`);
  const [rows, columns] = weight.shape;
  if (columns % block !== 0 && columns > block)
    throw new ArgumentError(`pack-quantized rows of ${columns} entries must consist of whole blocks, not of ${block}`);
  const bits = bitsOf[format];
  const groups = Math.ceil(columns / block);
  const packed = unpackCodes(format, hostOf(codes), groups * block);
  const zeros = zeroPoints && transposed(unpackCodes(format, hostOf(zeroPoints), groups), rows, groups);
  return {
    weight_packed: wordsOf(format, firstOfRows(packed, groups * block, columns), rows, columns),
    weight_scale: scales as HostTensor,
    ...(zeros && {
      weight_zero_point: turnWords(wordsOf(format, zeros, groups, rows), groups, Math.ceil((rows * bits) / 32)),
    }),
    weight_shape: HostTensor.from([rows, columns], { dtype: "i64" }),
  };
}

/** @throws ArgumentError, ShapeError for tensors that do not go together. */
export function fromPackQuantized(tensors: PackedTensors, bits: number): BlockWeight {
  const format = bits === 4 ? "int4" : bits === 8 ? "int8" : undefined;
  if (!format) throw new ArgumentError(`pack-quantized weights are read with 4 or 8 bits, not ${bits}`);
  const { weight_packed: packed, weight_scale: scale, weight_zero_point: zero, weight_shape: shape } = tensors;
  if (shape.size !== 2) throw new ShapeError(`weight_shape has two entries, not ${shape.size}`);
  const [rows, columns] = [shape.at(0), shape.at(1)];
  const words = (n: number): number => Math.ceil((n * bits) / 32);
  const groups = scale.shape[1] ?? 1;
  const fits = (t: HostTensor, a: number, b: number): boolean =>
    t.dtype === "i32" && t.shape.length === 2 && t.shape[0] === a && t.shape[1] === b;
  if (!fits(packed, rows, words(columns)))
    throw new ShapeError(
      `weight_packed of a matrix [${rows}, ${columns}] must be i32 [${rows}, ${words(columns)}], not ${packed.dtype} [${packed.shape.join(", ")}]`,
    );
  if (scale.shape[0] !== rows || groups < 1 || columns % groups !== 0)
    throw new ShapeError(`weight_scale [${scale.shape.join(", ")}] does not go with a matrix [${rows}, ${columns}]`);
  if (zero && !fits(zero, words(rows), groups))
    throw new ShapeError(
      `weight_zero_point must be i32 [${words(rows)}, ${groups}], not ${zero.dtype} [${zero.shape.join(", ")}]`,
    );
  const block = groups === 1 ? Math.ceil(columns / 16) * 16 : columns / groups;
  const wide = unpackCodes(format, packed.rawBytes(), (words(columns) * 32) / bits);
  const codes = new Uint8Array(rows * groups * block);
  for (let r = 0; r < rows; r++) {
    const start = (r * words(columns) * 32) / bits;
    codes.set(wide.subarray(start, start + columns), r * groups * block);
  }
  let zeroPoints: HostTensor | undefined;
  if (zero) {
    const perColumn = (words(rows) * 32) / bits;
    const turned = firstOfRows(
      unpackCodes(format, turnWords(zero, words(rows), groups).rawBytes(), perColumn),
      perColumn,
      rows,
    );
    const bytes = packCodes(format, transposed(turned, groups, rows), groups);
    zeroPoints = new HostTensor("u8", [rows, bytes.length / rows], bytes);
  }
  return new BlockWeight(
    {
      codes: new HostTensor("u8", [rows, groups, (block * bits) / 8], packCodes(format, codes, block)),
      scales: (scale.dtype === "f16" ? scale : scale.cast("f32")).reshape([rows, groups]),
      zeroPoints,
    },
    { format, block, columns },
  );
}

/** The `quantization_config` of a model whose linear layers, except `ignore`, are all packed this way. */
export function packQuantizedConfig(
  weight: BlockWeight,
  ignore: readonly string[] = ["lm_head"],
): Record<string, unknown> {
  const channel = weight.block >= weight.shape[1];
  return {
    quant_method: "compressed-tensors",
    format: "pack-quantized",
    quantization_status: "compressed",
    ignore,
    config_groups: {
      group_0: {
        targets: ["Linear"],
        weights: {
          num_bits: weight.format === "int8" ? 8 : 4,
          type: "int",
          symmetric: weight.zeroPoints === undefined,
          strategy: channel ? "channel" : "group",
          group_size: channel ? null : weight.block,
          dynamic: false,
        },
      },
    },
  };
}

function hostOf(leaf: unknown): Uint8Array {
  if (!(leaf instanceof HostTensor)) throw new ArgumentError("a symbolic weight cannot be packed into a file");
  return leaf.data as Uint8Array;
}

/** The transpose of entries `[rows, columns]`. */
function transposed(entries: Uint8Array, rows: number, columns: number): Uint8Array {
  return Uint8Array.from(entries, (_, i) => entries[(i % rows) * columns + Math.floor(i / rows)]!);
}

/** Rows of codes as `i32` words, each row filled up to whole ones. */
function wordsOf(format: "int4" | "int8", codes: Uint8Array, rows: number, width: number): HostTensor {
  const words = Math.ceil((width * bitsOf[format]) / 32);
  const bytes = packCodes(format, codes, width);
  const filled = new Uint8Array(rows * words * 4);
  const perRow = bytes.length / rows;
  for (let r = 0; r < rows; r++) filled.set(bytes.subarray(r * perRow, (r + 1) * perRow), r * words * 4);
  return new HostTensor("i32", [rows, words], new Int32Array(filled.buffer));
}

/** The transpose of words `[rows, columns]`. */
function turnWords(words: HostTensor, rows: number, columns: number): HostTensor {
  const from = words.data as Int32Array;
  const to = Int32Array.from(from, (_, i) => from[(i % rows) * columns + Math.floor(i / rows)]!);
  return new HostTensor("i32", [columns, rows], to);
}
