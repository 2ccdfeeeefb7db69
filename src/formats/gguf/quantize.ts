import { fromHalf, toHalf } from "../../tensor/dtype.ts";
import { ArgumentError, DTypeError } from "../../tensor/errors.ts";
import { ggmlTypes } from "./types.ts";

/**
 * Encoders of GGUF's block formats, the inverses of the decoders of `dequantize.ts`, where the layouts are described.
 * Scales are searched for the least squared error. Each takes `blocks` blocks from element `o` of `from` to byte `p`
 * of `to`, which holds zeroes.
 */
type Encoder = (from: Float32Array, o: number, to: Uint8Array, p: number, blocks: number) => void;

/** Stores `value` as a half float and returns what will be read back. */
function putHalf(to: Uint8Array, p: number, value: number): number {
  const half = toHalf(value);
  if ((half & 0x7c00) === 0x7c00) throw new ArgumentError(`a scale of ${value} is beyond half precision`);
  to[p] = half & 0xff;
  to[p + 1] = half >> 8;
  return fromHalf(half);
}

/** As `putHalf` of the least half float that is not below `value`, which is not negative: its largest code stays in range. */
function putHalfAbove(to: Uint8Array, p: number, value: number): number {
  const half = toHalf(value);
  return putHalf(to, p, fromHalf(fromHalf(half) < value ? half + 1 : half));
}

/** Nearest of the integers 0 to `levels`. */
function nearest(value: number, levels: number): number {
  const q = (value + 0.5) | 0;
  return q < 0 ? 0 : Math.min(q, levels);
}

/** 1 / step; a step of zero makes all codes equal. */
const inverseOf = (step: number): number => (step === 0 ? 0 : 1 / step);

/** Grids tried for the scale of a group, and how far apart their ends are in codes. */
const trials = 9;
const spacing = 0.25;

/** How much longer than `levels` the grid of a trial is, in codes. */
const stretch = (trial: number): number => spacing * (trial - (trials >> 1));

/**
 * The step `s` of the grid `s q`, `q` from `-levels` to `levels - 1`, that lies closest to `n` numbers. The number of
 * largest magnitude is placed at about `-levels`, where the grid reaches furthest, so `s` may be negative. For each
 * placement tried the best step in the least-squares sense is (x . q) / (q . q), and explains (x . q)^2 / (q . q) of x . x.
 */
function fitStep(x: Float32Array, o: number, n: number, levels: number): number {
  let extreme = 0;
  for (let i = o; i < o + n; i++) if (Math.abs(x[i]!) > Math.abs(extreme)) extreme = x[i]!;
  if (extreme === 0) return 0;
  let best = 0;
  let explained = -1;
  for (let trial = 0; trial < trials; trial++) {
    const inverse = -(levels + stretch(trial)) / extreme;
    let xq = 0;
    let qq = 0;
    for (let i = o; i < o + n; i++) {
      const q = nearest(x[i]! * inverse + levels, 2 * levels - 1) - levels;
      xq += x[i]! * q;
      qq += q * q;
    }
    if (xq * xq > explained * qq) {
      best = xq / qq;
      explained = (xq * xq) / qq;
    }
  }
  return best;
}

/** What `fitLine` found. */
const line = { step: 0, minimum: 0 };

/**
 * Step `s >= 0` and minimum `m >= 0` of the grid `s q - m`, `q` from 0 to `levels`, that lies closest to `n` numbers,
 * put into `line`. For each placement tried both follow from the codes by linear least squares.
 */
function fitLine(x: Float32Array, o: number, n: number, levels: number): void {
  let low = 0;
  let high = -Infinity;
  let sum = 0;
  for (let i = o; i < o + n; i++) {
    const value = x[i]!;
    if (value < low) low = value;
    if (value > high) high = value;
    sum += value;
  }
  line.step = 0;
  line.minimum = -low;
  if (high <= low) return;
  let least = Infinity;
  for (let trial = 0; trial < trials; trial++) {
    const inverse = (levels + stretch(trial)) / (high - low);
    let q1 = 0;
    let q2 = 0;
    let xq = 0;
    for (let i = o; i < o + n; i++) {
      const q = nearest((x[i]! - low) * inverse, levels);
      q1 += q;
      q2 += q * q;
      xq += x[i]! * q;
    }
    const determinant = n * q2 - q1 * q1;
    const minimum = determinant > 0 ? Math.max(0, (q1 * xq - q2 * sum) / determinant) : 0;
    const step = (xq + minimum * q1) / q2;
    // The squared error, less the numbers' own squares.
    const error = step * (step * q2 - 2 * xq) + minimum * (n * minimum + 2 * (sum - step * q1));
    if (error < least) {
      least = error;
      line.step = step;
      line.minimum = minimum;
    }
  }
}

/**
 * `step` and `minimum` as multiples, from 0 to 63, of `d` and `m`: of the nearest multiples and those beside them, the
 * pair whose grid is closest to the 32 numbers.
 */
function roundLine(
  x: Float32Array,
  o: number,
  levels: number,
  d: number,
  m: number,
  step: number,
  minimum: number,
): { scale: number; minimum: number } {
  const scale = nearest(step * inverseOf(d), 63);
  const low = nearest(minimum * inverseOf(m), 63);
  const best = { scale, minimum: low };
  let least = Infinity;
  for (let a = Math.max(0, scale - 1); a <= Math.min(63, scale + 1); a++) {
    const inverse = inverseOf(d * a);
    for (let b = Math.max(0, low - 1); b <= Math.min(63, low + 1); b++) {
      let error = 0;
      for (let i = o; i < o + 32; i++) {
        const shifted = x[i]! + m * b;
        const rest = shifted - d * a * nearest(shifted * inverse, levels);
        error += rest * rest;
      }
      if (error < least) {
        least = error;
        best.scale = a;
        best.minimum = b;
      }
    }
  }
  return best;
}

const q8_0: Encoder = (from, o, to, p, blocks) => {
  for (let b = 0; b < blocks; b++, o += 32, p += 34) {
    let largest = 0;
    for (let i = 0; i < 32; i++) largest = Math.max(largest, Math.abs(from[o + i]!));
    const inverse = inverseOf(putHalfAbove(to, p, largest / 127));
    for (let i = 0; i < 32; i++) to[p + 2 + i] = nearest(from[o + i]! * inverse + 127, 254) - 127;
  }
};

const q4_0: Encoder = (from, o, to, p, blocks) => {
  for (let b = 0; b < blocks; b++, o += 32, p += 18) {
    const inverse = inverseOf(putHalf(to, p, fitStep(from, o, 32, 8)));
    for (let i = 0; i < 16; i++) {
      to[p + 2 + i] = nearest(from[o + i]! * inverse + 8, 15) | (nearest(from[o + i + 16]! * inverse + 8, 15) << 4);
    }
  }
};

const steps = new Float64Array(16);
const minima = new Float64Array(16);
const codes = new Uint8Array(256);

/**
 * The 16 bytes of scales and minima of eight groups of 32 numbers, with which blocks of Q4_K and Q5_K begin; the codes,
 * from 0 to `levels`, are put into `codes`.
 */
function superBlock(from: Float32Array, o: number, levels: number, to: Uint8Array, p: number): void {
  for (let group = 0; group < 8; group++) {
    fitLine(from, o + 32 * group, 32, levels);
    steps[group] = line.step;
    minima[group] = line.minimum;
  }
  const d = putHalfAbove(to, p, Math.max(...steps.subarray(0, 8)) / 63);
  const m = putHalfAbove(to, p + 2, Math.max(...minima.subarray(0, 8)) / 63);
  for (let group = 0; group < 8; group++) {
    const { scale, minimum } = roundLine(from, o + 32 * group, levels, d, m, steps[group]!, minima[group]!);
    const at = p + 4 + (group & 3);
    if (group < 4) {
      to[at] = scale;
      to[at + 4] = minimum;
    } else {
      to[at + 8] = (scale & 15) | ((minimum & 15) << 4);
      to[at] = to[at]! | ((scale >> 4) << 6);
      to[at + 4] = to[at + 4]! | ((minimum >> 4) << 6);
    }
    const inverse = inverseOf(d * scale);
    const low = m * minimum;
    for (let i = 32 * group; i < 32 * group + 32; i++) codes[i] = nearest((from[o + i]! + low) * inverse, levels);
  }
}

const q2_K: Encoder = (from, o, to, p, blocks) => {
  for (let b = 0; b < blocks; b++, o += 256, p += 84) {
    for (let group = 0; group < 16; group++) {
      fitLine(from, o + 16 * group, 16, 3);
      steps[group] = line.step;
      minima[group] = line.minimum;
    }
    const d = putHalfAbove(to, p + 80, Math.max(...steps) / 15);
    const m = putHalfAbove(to, p + 82, Math.max(...minima) / 15);
    for (let group = 0; group < 16; group++) {
      const scale = nearest(steps[group]! * inverseOf(d), 15);
      const minimum = nearest(minima[group]! * inverseOf(m), 15);
      to[p + group] = scale | (minimum << 4);
      const inverse = inverseOf(d * scale);
      const at = p + 16 + 32 * (group >> 3) + 16 * (group & 1);
      for (let i = 0; i < 16; i++) {
        const code = nearest((from[o + 16 * group + i]! + m * minimum) * inverse, 3);
        to[at + i] = to[at + i]! | (code << (group & 6));
      }
    }
  }
};

const q4_K: Encoder = (from, o, to, p, blocks) => {
  for (let b = 0; b < blocks; b++, o += 256, p += 144) {
    superBlock(from, o, 15, to, p);
    for (let i = 0; i < 128; i++) {
      const low = 64 * (i >> 5) + (i & 31);
      to[p + 16 + i] = codes[low]! | (codes[low + 32]! << 4);
    }
  }
};

const q5_K: Encoder = (from, o, to, p, blocks) => {
  for (let b = 0; b < blocks; b++, o += 256, p += 176) {
    superBlock(from, o, 31, to, p);
    for (let i = 0; i < 128; i++) {
      const low = 64 * (i >> 5) + (i & 31);
      to[p + 48 + i] = (codes[low]! & 15) | ((codes[low + 32]! & 15) << 4);
    }
    for (let i = 0; i < 256; i++) to[p + 16 + (i & 31)] = to[p + 16 + (i & 31)]! | ((codes[i]! >> 4) << (i >> 5));
  }
};

const q6_K: Encoder = (from, o, to, p, blocks) => {
  for (let b = 0; b < blocks; b++, o += 256, p += 210) {
    for (let group = 0; group < 16; group++) steps[group] = fitStep(from, o + 16 * group, 16, 32);
    const d = putHalfAbove(to, p + 208, steps.reduce((largest, step) => Math.max(largest, Math.abs(step)), 0) / 127);
    for (let group = 0; group < 16; group++) {
      const scale = nearest(steps[group]! * inverseOf(d) + 127, 254) - 127;
      to[p + 192 + group] = scale;
      const inverse = inverseOf(d * scale);
      for (let i = 16 * group; i < 16 * group + 16; i++) codes[i] = nearest(from[o + i]! * inverse + 32, 63);
    }
    for (let i = 0; i < 256; i++) {
      const within = i & 127;
      const nibble = p + 64 * (i >> 7) + (within & 63);
      const pair = p + 128 + 32 * (i >> 7) + (within & 31);
      to[nibble] = to[nibble]! | ((codes[i]! & 15) << (within & 64 ? 4 : 0));
      to[pair] = to[pair]! | ((codes[i]! >> 4) << (2 * (within >> 5)));
    }
  }
};

const encoders: ReadonlyMap<string, Encoder> = new Map([
  ["Q4_0", q4_0],
  ["Q8_0", q8_0],
  ["Q2_K", q2_K],
  ["Q4_K", q4_K],
  ["Q5_K", q5_K],
  ["Q6_K", q6_K],
]);

/** Whether numbers can be encoded in blocks of the type called `type`. */
export function canQuantize(type: string): boolean {
  return encoders.has(type);
}

/**
 * Encodes numbers as whole blocks of the type called `type`.
 * @throws DTypeError for a type without an encoder; ArgumentError when the numbers are not whole blocks, not finite, or
 * too large for half-precision scales
 */
export function quantize(type: string, numbers: Float32Array): Uint8Array<ArrayBuffer> {
  const encode = encoders.get(type);
  if (!encode) throw new DTypeError(`pare has no encoder for ${type}; it has ${[...encoders.keys()].join(", ")}`);
  const { block, bytes } = ggmlTypes.get(type)!;
  const count = numbers.length / block;
  if (!Number.isInteger(count)) {
    throw new ArgumentError(`${numbers.length} numbers are not whole ${type} blocks of ${block}`);
  }
  const unfit = numbers.findIndex((x) => !Number.isFinite(x));
  if (unfit >= 0) throw new ArgumentError(`${type} cannot hold ${numbers[unfit]}, which is number ${unfit}`);
  const to = new Uint8Array(count * bytes);
  encode(numbers, 0, to, 0, count);
  return to;
}
