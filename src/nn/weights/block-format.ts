import {
  cast,
  div,
  HostTensor,
  mod,
  mul,
  pad,
  reshape,
  slice,
  staticDim,
  sum,
  type Tensor,
} from "../../tensor/index.ts";

/**
 * How the entries of a block are coded. Of a code `c` with scale `s` the value is `(step * c - zero) * s`:
 * - `int8`, `int6`, `int4`, `int3`, `int2`: whole numbers around the middle of the range, or around a zero point of the block;
 * - `ternary`: -1, 0 and 1, five to a byte (1.6 bits each);
 * - `binary`: -1 and 1, a bit each;
 * - `mid4`, `mid3`, `mid2`: odd numbers around zero, which is no level (mid-rise): -3, -1, 1 and 3 in 2 bits.
 */
export type BlockFormat = "int8" | "int6" | "int4" | "int3" | "int2" | "ternary" | "binary" | "mid4" | "mid3" | "mid2";

export interface BlockCoding {
  /** Number of codes: 0 to `levels - 1`. */
  readonly levels: number;
  readonly step: number;
  /** What stands for zero unless a block says otherwise. */
  readonly zero: number;
  /** Codes that share a group of whole bytes, and how many bytes that is. */
  readonly group: readonly [codes: number, bytes: number];
  /** Bits of the `MatMulNBits` kernel that runs it. */
  readonly native: 2 | 4 | 8;
}

export const blockFormats: Readonly<Record<BlockFormat, BlockCoding>> = {
  int8: { levels: 256, step: 1, zero: 128, group: [1, 1], native: 8 },
  int6: { levels: 64, step: 1, zero: 32, group: [4, 3], native: 8 },
  int4: { levels: 16, step: 1, zero: 8, group: [2, 1], native: 4 },
  int3: { levels: 8, step: 1, zero: 4, group: [8, 3], native: 4 },
  int2: { levels: 4, step: 1, zero: 2, group: [4, 1], native: 2 },
  ternary: { levels: 3, step: 1, zero: 1, group: [5, 1], native: 2 },
  binary: { levels: 2, step: 2, zero: 1, group: [8, 1], native: 2 },
  mid4: { levels: 16, step: 2, zero: 15, group: [2, 1], native: 8 },
  mid3: { levels: 8, step: 2, zero: 7, group: [8, 3], native: 4 },
  mid2: { levels: 4, step: 2, zero: 3, group: [4, 1], native: 4 },
};

/** Bytes that `count` neighbouring codes take. */
export function codeBytes(format: BlockFormat, count: number): number {
  const [codes, bytes] = blockFormats[format].group;
  return format === "ternary" ? Math.ceil(count / codes) : Math.ceil((count * bytes) / codes);
}

/**
 * Packs rows of `width` codes, each row from a byte of its own on. A group of codes is the digits, lowest first, of a
 * number to the base of the levels; its bytes are that number's, lowest first.
 */
export function packCodes(format: BlockFormat, codes: Uint8Array, width: number): Uint8Array {
  const { levels, group } = blockFormats[format];
  const [perGroup, groupBytes] = group;
  const rowBytes = codeBytes(format, width);
  const packed = new Uint8Array((codes.length / width) * rowBytes);
  for (let from = 0, out = 0; from < codes.length; from += width) {
    const end = out + rowBytes;
    for (let first = 0; first < width; first += perGroup) {
      let number = 0;
      for (let i = Math.min(first + perGroup, width) - 1; i >= first; i--) number = number * levels + codes[from + i]!;
      for (let b = 0; b < groupBytes && out < end; b++, number >>>= 8) packed[out++] = number;
    }
  }
  return packed;
}

/** The codes that `packCodes` packed. */
export function unpackCodes(format: BlockFormat, packed: Uint8Array, width: number): Uint8Array {
  const { levels, group } = blockFormats[format];
  const [perGroup, groupBytes] = group;
  const rowBytes = codeBytes(format, width);
  const codes = new Uint8Array((packed.length / rowBytes) * width);
  for (let from = 0, row = 0; from < packed.length; from += rowBytes, row += width) {
    for (let first = 0, at = 0; first < width; first += perGroup, at += groupBytes) {
      let number = 0;
      for (let b = Math.min(at + groupBytes, rowBytes) - 1; b >= at; b--) number = number * 256 + packed[from + b]!;
      for (let i = first; i < first + perGroup && i < width; i++) {
        const rest = Math.floor(number / levels);
        codes[row + i] = number - rest * levels;
        number = rest;
      }
    }
  }
  return codes;
}

/** The first `kept` of every `width` entries. */
export function firstOfRows(entries: Uint8Array, width: number, kept: number): Uint8Array {
  if (kept === width) return entries;
  const rows = entries.length / width;
  const result = new Uint8Array(rows * kept);
  for (let r = 0; r < rows; r++) result.set(entries.subarray(r * width, r * width + kept), r * kept);
  return result;
}

/** `unpackCodes` inside of a graph: `u8 [..., bytes]` to codes `i32 [..., width]`. */
export function unpackTensor(format: BlockFormat, packed: Tensor, width: number): Tensor {
  const [codes, bytes] = blockFormats[format].group;
  if (codes === 1) return cast(packed, "i32");
  // One word for every group of codes, and each code taken out of it.
  const length = staticDim(packed, -1);
  const missing = (bytes - (length % bytes)) % bytes;
  const front = packed.shape.slice(0, -1);
  const none = packed.shape.map(() => 0);
  const whole = cast(pad(packed, none, [...none.slice(1), missing]), "i32");
  const grouped = reshape(whole, [...front, (length + missing) / bytes, bytes], [packed]);
  const words = sum(
    mul(
      grouped,
      whole32(bytes, (i) => 256 ** i),
    ),
    { axes: [-1], keepDims: true },
  );
  const { levels } = blockFormats[format];
  const taken = mod(
    div(
      words,
      whole32(codes, (i) => levels ** i),
    ),
    levels,
  );
  return slice(reshape(taken, [...front, -1], [packed]), -1, 0, width);
}

const whole32 = (count: number, value: (i: number) => number): HostTensor =>
  HostTensor.from(
    Array.from({ length: count }, (_, i) => value(i)),
    { dtype: "i32" },
  );
