/**
 * The block formats of GGUF once more, written from their definition one element at a time: slow, and unlike the
 * decoders under test. Each gives element `i` of the block `b`.
 */
import { fromHalf } from "../../src/tensor/index.ts";

type Element = (b: Uint8Array, i: number) => number;

const half = (b: Uint8Array, at: number): number => fromHalf(b[at]! + 256 * b[at + 1]!);
const bit = (b: Uint8Array, at: number, k: number): number => Math.floor(b[at + Math.floor(k / 8)]! / 2 ** (k % 8)) % 2;
const int8 = (byte: number): number => (byte > 127 ? byte - 256 : byte);
/** Field `k` of `width` bits in the bytes from `at`, lowest first. */
const field = (b: Uint8Array, at: number, k: number, width: number): number => {
  let value = 0;
  for (let j = 0; j < width; j++) value += 2 ** j * bit(b, at, k * width + j);
  return value;
};

/** Nibble of element `i` of 32: sixteen bytes hold i and i + 16. */
const nibble32 = (b: Uint8Array, at: number, i: number): number => field(b, at, 2 * (i % 16) + Math.floor(i / 16), 4);
/** Nibble of element `i` of 256: thirty-two bytes hold i and i + 32 of every 64. */
const nibble256 = (b: Uint8Array, at: number, i: number): number =>
  field(b, at + 32 * Math.floor(i / 64), 2 * (i % 32) + (Math.floor(i / 32) % 2), 4);
/** Pair of bits of element `i` of 256: thirty-two bytes hold i, i + 32, i + 64 and i + 96 of every 128. */
const pair256 = (b: Uint8Array, at: number, i: number): number =>
  field(b, at + 32 * Math.floor(i / 128), 4 * (i % 32) + (Math.floor(i / 32) % 4), 2);
/** The bit plane `floor(i / 32)` of thirty-two bytes. */
const plane = (b: Uint8Array, at: number, i: number): number => bit(b, at + (i % 32), Math.floor(i / 32));

/** Six-bit scales and minima of eight groups in twelve bytes, as Q4_K and Q5_K keep them. */
function scales(b: Uint8Array, at: number): { scale: number[]; minimum: number[] } {
  const [scale, minimum]: [number[], number[]] = [[], []];
  for (let j = 0; j < 4; j++) {
    scale[j] = b[at + j]! % 64;
    minimum[j] = b[at + 4 + j]! % 64;
    scale[j + 4] = (b[at + 8 + j]! % 16) + 16 * Math.floor(b[at + j]! / 64);
    minimum[j + 4] = Math.floor(b[at + 8 + j]! / 16) + 16 * Math.floor(b[at + 4 + j]! / 64);
  }
  return { scale, minimum };
}

export const twins: Readonly<Record<string, Element>> = {
  Q4_0: (b, i) => half(b, 0) * (nibble32(b, 2, i) - 8),
  Q4_1: (b, i) => half(b, 0) * nibble32(b, 4, i) + half(b, 2),
  Q5_0: (b, i) => half(b, 0) * (nibble32(b, 6, i) + 16 * bit(b, 2, i) - 16),
  Q5_1: (b, i) => half(b, 0) * (nibble32(b, 8, i) + 16 * bit(b, 4, i)) + half(b, 2),
  Q8_0: (b, i) => half(b, 0) * int8(b[2 + i]!),
  Q2_K: (b, i) => {
    const group = b[Math.floor(i / 16)]!;
    return half(b, 80) * (group % 16) * pair256(b, 16, i) - half(b, 82) * Math.floor(group / 16);
  },
  Q3_K: (b, i) => {
    const j = Math.floor(i / 16);
    const scale =
      field(b, 96, j < 8 ? 2 * j : 2 * (j - 8) + 1, 4) + 16 * field(b, 104, 4 * (j % 4) + Math.floor(j / 4), 2);
    return half(b, 108) * (scale - 32) * (pair256(b, 32, i) + 4 * plane(b, 0, i) - 4);
  },
  Q4_K: (b, i) => {
    const { scale, minimum } = scales(b, 4);
    const j = Math.floor(i / 32);
    return half(b, 0) * scale[j]! * nibble256(b, 16, i) - half(b, 2) * minimum[j]!;
  },
  Q5_K: (b, i) => {
    const { scale, minimum } = scales(b, 4);
    const j = Math.floor(i / 32);
    return half(b, 0) * scale[j]! * (nibble256(b, 48, i) + 16 * plane(b, 16, i)) - half(b, 2) * minimum[j]!;
  },
  Q6_K: (b, i) => {
    // Sixty-four bytes hold the low nibbles of i and i + 64 of every 128.
    const low = field(b, 64 * Math.floor(i / 128), 2 * (i % 64) + (Math.floor(i / 64) % 2), 4);
    return half(b, 208) * int8(b[192 + Math.floor(i / 16)]!) * (low + 16 * pair256(b, 128, i) - 32);
  },
};

/** Where a block of each type keeps its half floats. */
export const halves: Readonly<Record<string, readonly number[]>> = {
  Q4_0: [0],
  Q4_1: [0, 2],
  Q5_0: [0],
  Q5_1: [0, 2],
  Q8_0: [0],
  Q2_K: [80, 82],
  Q3_K: [108],
  Q4_K: [0, 2],
  Q5_K: [0, 2],
  Q6_K: [208],
};
