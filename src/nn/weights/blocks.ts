import {
  ArgumentError,
  asTensor,
  cast,
  children,
  DTypeError,
  formatShape,
  gather,
  HostTensor,
  isHostTensor,
  isTensor,
  type Leaf,
  linear,
  matmulPacked,
  mul,
  type PackedWeight,
  rebuild,
  reshape,
  ShapeError,
  sameShape,
  slice,
  sub,
  type Tensor,
  type TypedArray,
  unsqueeze,
} from "../../tensor/index.ts";
import { Weight } from "../weight.ts";
import {
  type BlockFormat,
  blockFormats,
  codeBytes,
  firstOfRows,
  packCodes,
  unpackCodes,
  unpackTensor,
} from "./block-format.ts";

export interface BlockParts {
  /** `u8 [out, blocks, bytes of a block's codes]`, as `packCodes` packs them. */
  readonly codes: Leaf;
  /** `f32` or `f16 [out, blocks]`. */
  readonly scales: Leaf;
  /** `u8 [out, bytes of a row's zero points]`, packed as the codes are; absent: the middle of the range. */
  readonly zeroPoints?: Leaf | undefined;
}

export interface BlockLayout {
  readonly format: BlockFormat;
  /** Neighbours in a row that share a scale: a multiple of 16. Rows are filled up to whole blocks. */
  readonly block: number;
  /** Length of a row. */
  readonly columns: number;
  /** Activations are not rounded to 8 bits inside of the product, which is slower. Default false. */
  readonly exact?: boolean;
}

/**
 * A matrix rounded to few bits, with a scale (and a zero point where asymmetric) for each block of neighbours in a row.
 * Products run through onnxruntime's `MatMulNBits`. Codes of 8 and 4 bits in blocks of 16 to 256, and of 2 bits in
 * blocks of 32 to 128, powers of two, are what its kernel reads; others are coded anew for it, once, where the parts are host tensors, and decoded in the
 * graph where they are fed to it.
 */
export class BlockWeight extends Weight {
  override readonly kind = "blocks";
  override readonly shape: readonly [number, number];
  readonly codes: Leaf;
  readonly scales: Leaf;
  readonly zeroPoints: Leaf | undefined;
  readonly format: BlockFormat;
  readonly block: number;
  readonly exact: boolean;
  /** What the kernel reads; null where it cannot. */
  #native: PackedWeight | null | undefined;

  /** @throws ArgumentError, ShapeError, DTypeError for parts that do not belong together. */
  constructor({ codes, scales, zeroPoints }: BlockParts, { format, block, columns, exact = false }: BlockLayout) {
    super();
    checkBlock(format, block);
    const rows = codes.shape[0] as number;
    const blocks = Math.ceil(columns / block);
    need("codes", codes, [rows, blocks, codeBytes(format, block)], ["u8"]);
    need("scales", scales, [rows, blocks], ["f32", "f16"]);
    if (zeroPoints) {
      if (!hasZeroPoints(format)) throw new ArgumentError(`${format} blocks are symmetric: they have no zero points`);
      need("zero points", zeroPoints, [rows, codeBytes(format, blocks)], ["u8"]);
    }
    this.shape = [rows, columns];
    this.codes = codes;
    this.scales = scales;
    this.zeroPoints = zeroPoints;
    this.format = format;
    this.block = block;
    this.exact = exact;
  }

  override apply(x: Tensor): Tensor {
    if (this.#native === undefined) this.#native = nativeOf(this) ?? null;
    if (!this.#native) return linear(x, cast(this.dense(), x.dtype));
    const scales = cast(this.#native.scales, x.dtype);
    return matmulPacked(x, { ...this.#native, scales }, { exact: this.exact });
  }

  /** Only the rows asked for are decoded. */
  override rows(ids: Tensor): Tensor {
    return this.#decode(
      gather(this.codes, ids),
      gather(this.scales, ids),
      this.zeroPoints && gather(this.zeroPoints, ids),
    );
  }

  override dense(): Tensor {
    return this.#decode(asTensor(this.codes), asTensor(this.scales), this.zeroPoints && asTensor(this.zeroPoints));
  }

  /** Codes `[..., blocks, bytes]` to values `[..., in]`. */
  #decode(codes: Tensor, scales: Tensor, zeroPoints: Tensor | undefined): Tensor {
    const { step, zero } = blockFormats[this.format];
    const blocks = scales.shape[scales.rank - 1] as number;
    const steps = mul(unpackTensor(this.format, codes, this.block), step);
    const centred = sub(steps, zeroPoints ? unsqueeze(unpackTensor(this.format, zeroPoints, blocks), -1) : zero);
    const values = mul(cast(centred, "f32"), cast(unsqueeze(scales, -1), "f32"));
    const front = scales.shape.slice(0, -1);
    return slice(reshape(values, [...front, blocks * this.block], [scales]), -1, 0, this.shape[1]);
  }

  override [children](): Record<string, Leaf> {
    const { codes, scales, zeroPoints } = this;
    return { codes, scales, ...(zeroPoints && { zeroPoints }) };
  }

  override [rebuild](parts: Record<string, unknown>): BlockWeight {
    return new BlockWeight(parts as unknown as BlockParts, this.layout);
  }

  override get attributes(): Readonly<Record<string, unknown>> {
    return { ...this.layout };
  }

  get layout(): Required<BlockLayout> {
    return { format: this.format, block: this.block, columns: this.shape[1], exact: this.exact };
  }
}

/** Whether blocks of the format may have zero points. */
export function hasZeroPoints(format: BlockFormat): boolean {
  return blockFormats[format].step === 1 && format !== "ternary";
}

/** @throws ArgumentError for a block that no weight can have. */
export function checkBlock(format: BlockFormat, block: number): void {
  if (!Object.hasOwn(blockFormats, format))
    throw new ArgumentError(`there is no block format "${format}"; there are ${Object.keys(blockFormats).join(", ")}`);
  if (!(Number.isInteger(block) && block >= 16 && block % 16 === 0))
    throw new ArgumentError(`a block is a multiple of 16 entries, not ${block}`);
}

function need(what: string, t: Leaf, shape: readonly number[], types: readonly string[]): void {
  if (!types.includes(t.dtype))
    throw new DTypeError(`the ${what} of a block weight must be ${types.join(" or ")}, not ${t.dtype}`);
  if (!sameShape(t.shape, shape))
    throw new ShapeError(`the ${what} of this block weight must be ${formatShape(shape)}, not ${formatShape(t.shape)}`);
}

// ------------------------------------------------------------------------------------------------ native form

/** The blocks that the kernel is fast with: powers of two. It also runs 2 bits in others, in single precision. */
const fastBlocks = { 2: [32, 128], 4: [16, 256], 8: [16, 256] } as const;

/** What the kernel reads, or undefined where the weight has to be coded anew for it and is not here to be. */
function nativeOf({ format, block, shape, codes, scales, zeroPoints }: BlockWeight): PackedWeight | undefined {
  const { native: fewest, levels, step, zero } = blockFormats[format];
  const bits = block % fastBlocks[fewest][0] === 0 ? fewest : 4;
  const native = `int${bits}` as const;
  let inner: number = fastBlocks[bits][1];
  while (block % inner !== 0) inner /= 2;
  if (format === native && inner === block) return { codes, scales, ...(zeroPoints && { zeroPoints }), bits, block };
  if (!isHostTensor(codes) || !isHostTensor(scales) || isTensor(zeroPoints)) return undefined;

  const [rows, columns] = shape;
  const [blocks, inners] = [Math.ceil(columns / block), Math.ceil(columns / inner)];
  const shift = blockFormats[native].zero - zero;
  const recode = Uint8Array.from({ length: levels }, (_, code) => code * step + shift);
  const entries = unpackCodes(format, codes.data as Uint8Array, block).map((code) => recode[code]!);
  const kept = firstOfRows(entries, blocks * block, inners * inner);
  // One entry for each inner block: that of the block that it lies in.
  const owner = Array.from({ length: inners }, (_, i) => Math.floor((i * inner) / block));
  const spread = <A extends TypedArray>(from: A, to: A): A => {
    for (let r = 0; r < rows; r++) owner.forEach((b, i) => void (to[r * inners + i] = from[r * blocks + b]!));
    return to;
  };
  const wideScales = HostTensor.zeros(scales.dtype, [rows, inners]);
  spread(scales.data, wideScales.data);
  const wideZeros =
    zeroPoints && spread(unpackCodes(format, zeroPoints.data as Uint8Array, blocks), new Uint8Array(rows * inners));
  return {
    codes: new HostTensor("u8", [rows, inners, (inner * bits) / 8], packCodes(native, kept, inner)),
    scales: wideScales,
    ...(wideZeros && {
      zeroPoints: new HostTensor(
        "u8",
        [rows, codeBytes(native, inners)],
        packCodes(
          native,
          wideZeros.map((z) => z + shift),
          inners,
        ),
      ),
    }),
    bits,
    block: inner,
  };
}
