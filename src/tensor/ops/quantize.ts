import { formatShape, multiplyDims } from "../dims.ts";
import { type DType, dtypeFromOnnx, dtypes, isFloat } from "../dtype.ts";
import { ArgumentError, DTypeError, ShapeError } from "../errors.ts";
import {
  type Attrs,
  asTensor,
  defineOp,
  type InferContext,
  normalizeAxis,
  op,
  scalar,
  staticDim,
  type Tensor,
  type TensorLike,
  within,
} from "../tensor.ts";
import { bitwiseAnd, cast, mul, shiftRight, sub } from "./elementwise.ts";
import { expand } from "./fill.ts";
import { matmul } from "./linalg.ts";
import { concat, reshape, transpose, unsqueeze } from "./shape.ts";
import { slice } from "./slice.ts";

// ------------------------------------------------------------------------------------- linear quantization

const linear = { axis: "int", block_size: "int" } as const;

/** Scales (or zero points) shaped to broadcast to `x`: one for all, one per entry of an axis, or one per block of it. */
function spreadOver(x: Tensor, t: Tensor, attrs: Attrs): Tensor {
  if (t.rank === 0) return t;
  const axis = normalizeAxis((attrs.axis as number | undefined) ?? 1, x.rank);
  const block = (attrs.block_size as number | undefined) ?? 0;
  if (block === 0)
    return reshape(
      t,
      x.shape.map((_, i) => (i === axis ? t.shape[0]! : 1)),
      [t],
    );
  const wide = expand(unsqueeze(t, axis + 1), [...t.shape.slice(0, axis + 1), block, ...t.shape.slice(axis + 1)], [t]);
  const merged = t.shape.map((d, i) => (i === axis ? multiplyDims(d, block) : d));
  return slice(reshape(wide, merged, [t]), axis, 0, staticDim(x, axis));
}

/** Checks that scales (and zero points) belong to `x`. */
function checkScales({ input, inputs, attrs }: InferContext): void {
  const [x, scale, zero] = [input(0), input(1), inputs[2]];
  if (!isFloat(scale.dtype)) throw new DTypeError(`its scales must be floating-point, not ${scale.dtype}`);
  if (zero && formatShape(zero.shape) !== formatShape(scale.shape))
    throw new ShapeError(`scales ${formatShape(scale.shape)} and zero points ${formatShape(zero.shape)} differ`);
  if (scale.rank === 0) return;
  const axis = normalizeAxis((attrs.axis as number | undefined) ?? 1, x.rank);
  const block = (attrs.block_size as number | undefined) ?? 0;
  const [length, count] = [x.shape[axis]!, scale.shape[block === 0 ? 0 : axis]!];
  const fits = block === 0 ? scale.rank === 1 && count === length : scale.rank === x.rank;
  const enough = block === 0 || typeof length !== "number" || Math.ceil(length / block) === count;
  if (!fits || !enough)
    throw new ShapeError(
      block === 0
        ? `it needs ${length} scales along axis ${axis}, not ${formatShape(scale.shape)}`
        : `blocks of ${block} along axis ${axis} of ${formatShape(x.shape)} do not go with scales ${formatShape(scale.shape)}`,
    );
}

defineOp({
  name: "DequantizeLinear",
  attrs: linear,
  arity: [2, 3],
  infer: (context) => {
    checkScales(context);
    const [x, scale, zero] = [context.input(0), context.input(1), context.inputs[2]];
    if (zero && zero.dtype !== x.dtype) throw new DTypeError(`its zero points must be ${x.dtype}, not ${zero.dtype}`);
    return [{ dtype: scale.dtype, shape: x.shape }];
  },
  expand: ([x, scale, zero], attrs) => {
    const steps = cast(x!, scale!.dtype);
    const centred = zero ? sub(steps, spreadOver(x!, cast(zero, scale!.dtype), attrs)) : steps;
    return [mul(centred, spreadOver(x!, scale!, attrs))];
  },
});

/**
 * Floating-point values of whole numbers: `(x - zeroPoint) * scale`, with one scale for all, one per entry of `axis`,
 * or, with `block`, one for every `block` neighbours along it.
 */
export function dequantize(
  x: TensorLike,
  scale: TensorLike,
  zeroPoint?: TensorLike | null,
  { axis = 1, block = 0 }: { axis?: number; block?: number } = {},
): Tensor {
  const inputs = [asTensor(x), asTensor(scale), ...(zeroPoint == null ? [] : [asTensor(zeroPoint)])];
  return op("DequantizeLinear", inputs, { axis, ...(block > 0 && { block_size: block }) });
}

defineOp({
  name: "QuantizeLinear",
  attrs: { ...linear, output_dtype: "int", saturate: "int" },
  arity: [2, 3],
  flat: true,
  infer: (context) => {
    checkScales(context);
    const asked = context.attrs.output_dtype as number | undefined;
    const dtype = asked ? dtypeFromOnnx(asked) : (context.inputs[2]?.dtype ?? "u8");
    if (!dtype || isFloat(dtype)) throw new DTypeError(`it gives whole numbers, not ${dtype ?? `type ${asked}`}`);
    return [{ dtype, shape: context.input(0).shape }];
  },
});

/** Whole numbers `round(x / scale) + zeroPoint`, kept within the range of `dtype`; no gradient flows. */
export function quantize(
  x: TensorLike,
  scale: TensorLike,
  dtype: DType,
  { zeroPoint, axis = 1, block = 0 }: { zeroPoint?: TensorLike; axis?: number; block?: number } = {},
): Tensor {
  const inputs = [asTensor(x), asTensor(scale), ...(zeroPoint === undefined ? [] : [asTensor(zeroPoint)])];
  return op("QuantizeLinear", inputs, {
    axis,
    output_dtype: dtypes[dtype].onnx,
    ...(block > 0 && { block_size: block }),
  });
}

// -------------------------------------------------------------------------------- products with packed weights

/** Whole numbers packed several to a byte, low bits first, along the last axis: `u8 [..., n]` to `[..., n * 8 / bits]`. */
function unpack(x: Tensor, bits: number): Tensor {
  if (bits === 8) return x;
  const parts = Array.from({ length: 8 / bits }, (_, i) =>
    unsqueeze(bitwiseAnd(i === 0 ? x : shiftRight(x, i * bits), 2 ** bits - 1), -1),
  );
  return reshape(concat(parts, -1), [...x.shape.slice(0, -1), -1]);
}

interface Packed {
  readonly n: number;
  readonly k: number;
  readonly bits: number;
  readonly block: number;
  readonly blocks: number;
}

function packedOf(attrs: Attrs): Packed {
  const { N: n, K: k, bits = 4, block_size: block } = attrs as Record<string, number>;
  if (n === undefined || k === undefined || block === undefined)
    throw new ArgumentError("it needs K, N and block_size");
  if (bits !== 2 && bits !== 4 && bits !== 8) throw new ArgumentError(`it runs 2, 4 or 8 bits, not ${bits}`);
  if (block < 16 || (block & (block - 1)) !== 0)
    throw new ArgumentError(`its block is a power of two from 16, not ${block}`);
  return { n, k, bits, block, blocks: Math.ceil(k / block) };
}

defineOp({
  name: "com.microsoft.MatMulNBits",
  attrs: { K: "int", N: "int", bits: "int", block_size: "int", accuracy_level: "int" },
  arity: [3, 6],
  infer: ({ input, inputs, attrs }) => {
    const [x, codes, scales, zeros] = [input(0), input(1), input(2), inputs[3]];
    const { n, k, bits, block, blocks } = packedOf(attrs);
    if (x.shape[x.rank - 1] !== k) throw new ShapeError(`its input ${formatShape(x.shape)} must end in ${k}`);
    if (codes.dtype !== "u8") throw new DTypeError(`its packed weights must be u8, not ${codes.dtype}`);
    const wanted = [n, blocks, (block * bits) / 8];
    if (formatShape(codes.shape) !== formatShape(wanted))
      throw new ShapeError(`its packed weights must be ${formatShape(wanted)}, not ${formatShape(codes.shape)}`);
    if (sizeOfStatic(scales) !== n * blocks)
      throw new ShapeError(`it needs ${n * blocks} scales, not ${formatShape(scales.shape)}`);
    if (zeros && zeros.dtype === "u8" && sizeOfStatic(zeros) !== n * Math.ceil((blocks * bits) / 8))
      throw new ShapeError(
        `its packed zero points must be [${n}, ${Math.ceil((blocks * bits) / 8)}], not ${formatShape(zeros.shape)}`,
      );
    if (inputs[4]) throw new ArgumentError("reordered groups (g_idx) are not supported");
    return [{ dtype: x.dtype, shape: [...x.shape.slice(0, -1), n] }];
  },
  expand: ([x, codes, scales, zeros, _order, bias], attrs) => {
    const { n, k, bits, blocks } = packedOf(attrs);
    const dtype = scales!.dtype;
    const steps = cast(unpack(codes!, bits), dtype);
    const middle = zeros
      ? reshape(
          zeros.dtype === "u8"
            ? slice(cast(unpack(reshape(zeros, [n, -1]), bits), dtype), 1, 0, blocks)
            : cast(zeros, dtype),
          [n, blocks, 1],
        )
      : scalar(2 ** (bits - 1), dtype);
    const values = mul(sub(steps, middle), reshape(scales!, [n, blocks, 1]));
    const weight = slice(reshape(values, [n, -1]), 1, 0, k);
    const product = matmul(x!, transpose(cast(weight, x!.dtype)));
    return [bias ? op("Add", [product, bias]) : product];
  },
});

const sizeOfStatic = (t: Tensor): number => t.shape.reduce<number>((n, _, i) => n * staticDim(t, i), 1);

export interface PackedWeight {
  /** `u8 [out, blocks, block * bits / 8]`, low bits first. */
  readonly codes: TensorLike;
  /** `[out * blocks]` or `[out, blocks]`. */
  readonly scales: TensorLike;
  /** Packed `u8 [out, ceil(blocks * bits / 8)]`; absent: the middle of the range. */
  readonly zeroPoints?: TensorLike;
  readonly bits: 2 | 4 | 8;
  readonly block: number;
}

/**
 * `x [..., in]` times the transpose of a packed weight `[out, in]`: onnxruntime's `MatMulNBits`. The activations are
 * rounded to 8 bits block by block inside, which makes it several times faster on the CPU; with `exact` they are not.
 */
export function matmulPacked(
  x: TensorLike,
  { codes, scales, zeroPoints, bits, block }: PackedWeight,
  { exact = false } = {},
): Tensor {
  return within("matmulPacked", [x, codes, scales], () => {
    const [input, packed] = [asTensor(x), asTensor(codes)];
    const inputs = [input, packed, asTensor(scales), ...(zeroPoints === undefined ? [] : [asTensor(zeroPoints)])];
    const attrs = {
      K: staticDim(input, -1),
      N: staticDim(packed, 0),
      bits,
      block_size: block,
      accuracy_level: exact ? 0 : 4,
    };
    return op("com.microsoft.MatMulNBits", inputs, attrs);
  });
}
