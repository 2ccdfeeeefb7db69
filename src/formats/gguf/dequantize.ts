import { fromHalf } from "../../tensor/dtype.ts";
import { ArgumentError, DTypeError } from "../../tensor/errors.ts";
import { ggmlTypes } from "./types.ts";

/**
 * Decoders of GGUF's block formats. Each takes `blocks` blocks at byte `p` of `from` to element `o` of `to`. In the
 * diagrams `d` and `m` are half floats, and nibbles are 4-bit halves of bytes.
 */
type Decoder = (from: Uint8Array, p: number, to: Float32Array, o: number, blocks: number) => void;

const half = (from: Uint8Array, p: number): number => fromHalf(from[p]! | (from[p + 1]! << 8));

const signed = (byte: number): number => (byte << 24) >> 24;

/** d, 32 signed bytes q: d q. */
const q8_0: Decoder = (from, p, to, o, blocks) => {
  for (let b = 0; b < blocks; b++, p += 34, o += 32) {
    const d = half(from, p);
    for (let i = 0; i < 32; i++) to[o + i] = d * signed(from[p + 2 + i]!);
  }
};

/** d, 16 bytes whose low nibbles are elements 0-15 and high nibbles 16-31: d (q - 8). */
const q4_0: Decoder = (from, p, to, o, blocks) => {
  for (let b = 0; b < blocks; b++, p += 18, o += 32) {
    const d = half(from, p);
    for (let i = 0; i < 16; i++) {
      const byte = from[p + 2 + i]!;
      to[o + i] = d * ((byte & 15) - 8);
      to[o + i + 16] = d * ((byte >> 4) - 8);
    }
  }
};

/** d, m, nibbles as in Q4_0: d q + m. */
const q4_1: Decoder = (from, p, to, o, blocks) => {
  for (let b = 0; b < blocks; b++, p += 20, o += 32) {
    const d = half(from, p);
    const m = half(from, p + 2);
    for (let i = 0; i < 16; i++) {
      const byte = from[p + 4 + i]!;
      to[o + i] = d * (byte & 15) + m;
      to[o + i + 16] = d * (byte >> 4) + m;
    }
  }
};

/** The 32 bits at `p`: bit i is the fifth bit of element i. */
const fifthBits = (from: Uint8Array, p: number): number =>
  from[p]! | (from[p + 1]! << 8) | (from[p + 2]! << 16) | (from[p + 3]! << 24);

/** d, 32 fifth bits, nibbles as in Q4_0: d (q - 16). */
const q5_0: Decoder = (from, p, to, o, blocks) => {
  for (let b = 0; b < blocks; b++, p += 22, o += 32) {
    const d = half(from, p);
    const high = fifthBits(from, p + 2);
    for (let i = 0; i < 16; i++) {
      const byte = from[p + 6 + i]!;
      to[o + i] = d * (((byte & 15) | (((high >>> i) & 1) << 4)) - 16);
      to[o + i + 16] = d * (((byte >> 4) | (((high >>> (i + 16)) & 1) << 4)) - 16);
    }
  }
};

/** d, m, 32 fifth bits, nibbles as in Q4_0: d q + m. */
const q5_1: Decoder = (from, p, to, o, blocks) => {
  for (let b = 0; b < blocks; b++, p += 24, o += 32) {
    const d = half(from, p);
    const m = half(from, p + 2);
    const high = fifthBits(from, p + 4);
    for (let i = 0; i < 16; i++) {
      const byte = from[p + 8 + i]!;
      to[o + i] = d * ((byte & 15) | (((high >>> i) & 1) << 4)) + m;
      to[o + i + 16] = d * ((byte >> 4) | (((high >>> (i + 16)) & 1) << 4)) + m;
    }
  }
};

/**
 * 16 bytes of scale and minimum (low and high nibble), 64 bytes of 2-bit q, d, m: d scale q - m minimum. Two halves
 * of 128 elements take 32 bytes each; in a half, bits 2k and 2k+1 of byte i are element 32k + i, and a scale serves
 * 16 elements.
 */
const q2_K: Decoder = (from, p, to, o, blocks) => {
  for (let b = 0; b < blocks; b++, p += 84, o += 256) {
    const d = half(from, p + 80);
    const m = half(from, p + 82);
    for (let group = 0; group < 16; group++) {
      const scale = from[p + group]!;
      const step = d * (scale & 15);
      const low = m * (scale >> 4);
      const bytes = p + 16 + 32 * (group >> 3) + 16 * (group & 1);
      const shift = group & 6;
      const out = o + 16 * group;
      for (let i = 0; i < 16; i++) to[out + i] = step * ((from[bytes + i]! >> shift) & 3) - low;
    }
  }
};

/**
 * 32 bytes of third bits (bit k of byte i is element 32k + i), 64 bytes of low bits as in Q2_K, 12 bytes of sixteen
 * 6-bit scales (low nibbles of 0-7 and then of 8-15 as the nibbles of bytes 0-7, high bits 2k and 2k+1 of bytes 8-11
 * for scale 4k + byte), d: d (scale - 32) (q - 4).
 */
const q3_K: Decoder = (from, p, to, o, blocks) => {
  for (let b = 0; b < blocks; b++, p += 110, o += 256) {
    const d = half(from, p + 108);
    for (let group = 0; group < 16; group++) {
      const low = (from[p + 96 + (group & 7)]! >> (group < 8 ? 0 : 4)) & 15;
      const high = (from[p + 104 + (group & 3)]! >> (2 * (group >> 2))) & 3;
      const step = d * ((low | (high << 4)) - 32);
      const bytes = p + 32 + 32 * (group >> 3) + 16 * (group & 1);
      const masks = p + 16 * (group & 1);
      const shift = group & 6;
      const bit = group >> 1;
      const out = o + 16 * group;
      for (let i = 0; i < 16; i++) {
        to[out + i] = step * (((from[bytes + i]! >> shift) & 3) + (((from[masks + i]! >> bit) & 1) << 2) - 4);
      }
    }
  }
};

/**
 * Scale `j` of eight in the 12 bytes at `p`: the low six bits of byte j for the first four, and for the others the low
 * nibble of byte j + 4 under the two high bits of byte j - 4.
 */
function sixBitScale(from: Uint8Array, p: number, j: number): number {
  return j < 4 ? from[p + j]! & 63 : (from[p + j + 4]! & 15) | ((from[p + j - 4]! >> 6) << 4);
}

/** Minimum `j` of eight in the same bytes: as the scales, of bytes j + 4, and of high nibbles under bits of byte j. */
function sixBitMinimum(from: Uint8Array, p: number, j: number): number {
  return j < 4 ? from[p + j + 4]! & 63 : (from[p + j + 4]! >> 4) | ((from[p + j]! >> 6) << 4);
}

/** d, m, scales and minima, 128 bytes of q: d scale q - m minimum. Groups 2k and 2k+1 are the nibbles of 32 bytes. */
const q4_K: Decoder = (from, p, to, o, blocks) => {
  for (let b = 0; b < blocks; b++, p += 144, o += 256) {
    const d = half(from, p);
    const m = half(from, p + 2);
    for (let group = 0; group < 8; group++) {
      const step = d * sixBitScale(from, p + 4, group);
      const low = m * sixBitMinimum(from, p + 4, group);
      const bytes = p + 16 + 32 * (group >> 1);
      const shift = 4 * (group & 1);
      const out = o + 32 * group;
      for (let i = 0; i < 32; i++) to[out + i] = step * ((from[bytes + i]! >> shift) & 15) - low;
    }
  }
};

/** As Q4_K, with 32 bytes of fifth bits before the nibbles: bit k of byte i is element 32k + i. */
const q5_K: Decoder = (from, p, to, o, blocks) => {
  for (let b = 0; b < blocks; b++, p += 176, o += 256) {
    const d = half(from, p);
    const m = half(from, p + 2);
    for (let group = 0; group < 8; group++) {
      const step = d * sixBitScale(from, p + 4, group);
      const low = m * sixBitMinimum(from, p + 4, group);
      const bytes = p + 48 + 32 * (group >> 1);
      const shift = 4 * (group & 1);
      const out = o + 32 * group;
      for (let i = 0; i < 32; i++) {
        const q = ((from[bytes + i]! >> shift) & 15) | (((from[p + 16 + i]! >> group) & 1) << 4);
        to[out + i] = step * q - low;
      }
    }
  }
};

/**
 * 128 bytes of low nibbles, 64 bytes of high bit pairs, 16 signed scales, d: d scale (q - 32). In each half of 128
 * elements, the low nibbles of 64 bytes are elements 0-63 and their high nibbles 64-127; bits 2k and 2k+1 of byte i of
 * 32 are the high pair of element 32k + i.
 */
const q6_K: Decoder = (from, p, to, o, blocks) => {
  for (let b = 0; b < blocks; b++, p += 210, o += 256) {
    const d = half(from, p + 208);
    for (let group = 0; group < 16; group++) {
      const step = d * signed(from[p + 192 + group]!);
      const within = 16 * (group & 7);
      const nibbles = p + 64 * (group >> 3) + (within & 63);
      const pairs = p + 128 + 32 * (group >> 3) + (within & 31);
      const shift = within & 64 ? 4 : 0;
      const pair = 2 * (within >> 5);
      const out = o + 16 * group;
      for (let i = 0; i < 16; i++) {
        const q = ((from[nibbles + i]! >> shift) & 15) | (((from[pairs + i]! >> pair) & 3) << 4);
        to[out + i] = step * (q - 32);
      }
    }
  }
};

const decoders: ReadonlyMap<string, Decoder> = new Map([
  ["Q4_0", q4_0],
  ["Q4_1", q4_1],
  ["Q5_0", q5_0],
  ["Q5_1", q5_1],
  ["Q8_0", q8_0],
  ["Q2_K", q2_K],
  ["Q3_K", q3_K],
  ["Q4_K", q4_K],
  ["Q5_K", q5_K],
  ["Q6_K", q6_K],
]);

/** Whether blocks of the type called `type` can be decoded. */
export function canDequantize(type: string): boolean {
  return decoders.has(type);
}

/**
 * Decodes whole blocks of the type called `type` to `to`, from its element `offset` on.
 * @throws DTypeError for a type without a decoder; ArgumentError when the bytes are not whole blocks or do not fit
 */
export function dequantize(type: string, blocks: Uint8Array, to: Float32Array, offset = 0): void {
  const decode = decoders.get(type);
  if (!decode) throw new DTypeError(`pare has no decoder for ${type}; it has ${[...decoders.keys()].join(", ")}`);
  const { block, bytes } = ggmlTypes.get(type)!;
  const count = blocks.length / bytes;
  if (!Number.isInteger(count) || offset + count * block > to.length) {
    throw new ArgumentError(`${blocks.length} bytes of ${type} do not fill elements from ${offset} of ${to.length}`);
  }
  decode(blocks, 0, to, offset, count);
}
