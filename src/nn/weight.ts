import {
  asTensor,
  byteLength,
  children,
  type Dim,
  gather,
  isLeaf,
  type Leaf,
  linear,
  rebuild,
  sizeOf,
  type Tensor,
  type TensorLike,
  type TreeNode,
} from "../tensor/index.ts";

/**
 * A weight matrix `[out, in]` as a model sees it: something that applies itself to an input. How the numbers are
 * represented (dense, packed blocks, sparse, low rank, with an adapter on top, ...) is a subclass in a file of its own;
 * no architecture knows.
 *
 * The tensors inside are symbolic while a program is traced and host tensors otherwise. A weight is a tree node, so a
 * record of weights can be handed to `compile`, differentiated, saved and restored like any tree of tensors.
 */
export abstract class Weight implements TreeNode {
  /** Name of the representation, as written in files and reports. */
  abstract readonly kind: string;
  /** `[out, in]`. */
  abstract readonly shape: readonly [number, number];

  /** `x [..., in]` to `[..., out]`: the product with the transpose of the matrix. */
  abstract apply(x: Tensor): Tensor;

  /** Rows of the matrix for whole-number `ids [...]`, as `[..., in]`: an embedding lookup. */
  abstract rows(ids: Tensor): Tensor;

  /** The matrix itself, `[out, in]`, in floating point. */
  abstract dense(): Tensor;

  /** The tensors, and the weights, that the representation is made of. */
  abstract [children](): Record<string, Leaf | Weight>;
  abstract [rebuild](parts: Record<string, unknown>): Weight;

  /** What it takes besides its children to make the same weight again: plain values that JSON keeps. */
  get attributes(): Readonly<Record<string, unknown>> {
    return {};
  }

  /** Exact size of the representation in bytes. */
  get bytes(): number {
    return Object.values(this[children]()).reduce(
      (n, part) => n + (part instanceof Weight ? part.bytes : byteLength(part.dtype, sizeOf(part.shape) as number)),
      0,
    );
  }

  /** Bits per entry of the matrix, scales and other overhead included. */
  get bitsPerWeight(): number {
    return (8 * this.bytes) / (this.shape[0] * this.shape[1]);
  }
}

/** The plain representation: one floating-point matrix. */
export class Dense extends Weight {
  override readonly kind = "dense";
  readonly values: Leaf;

  /** @param values `[out, in]` */
  constructor(values: Leaf) {
    super();
    this.values = values;
  }

  override get shape(): readonly [number, number] {
    return this.values.shape as readonly Dim[] as readonly [number, number];
  }

  override apply(x: Tensor): Tensor {
    return linear(x, this.values);
  }

  override rows(ids: Tensor): Tensor {
    return gather(this.values, ids, 0);
  }

  override dense(): Tensor {
    return asTensor(this.values);
  }

  override [children](): Record<string, Leaf> {
    return { values: this.values };
  }

  override [rebuild](parts: Record<string, unknown>): Dense {
    return new Dense(parts.values as Leaf);
  }
}

/** A weight as it is, or a bare matrix `[out, in]` as a dense one. */
export function asWeight(value: Weight | TensorLike): Weight {
  if (value instanceof Weight) return value;
  return new Dense(isLeaf(value) ? value : asTensor(value));
}
