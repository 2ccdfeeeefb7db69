import {
  ArgumentError,
  add,
  children,
  formatShape,
  mul,
  rebuild,
  ShapeError,
  sameShape,
  type Tensor,
} from "../../tensor/index.ts";
import { Weight } from "../weight.ts";

/** A term of a sum, and the factor that it is taken with. */
export interface Term {
  readonly weight: Weight;
  /** Default 1. */
  readonly scale?: number;
}

/** A sum of weights: low rank plus sparse, or packed blocks with an adapter (LoRA) on top. */
export class SumWeight extends Weight {
  override readonly kind = "sum";
  readonly terms: readonly Required<Term>[];

  /** @throws ArgumentError without terms, ShapeError for terms of different shapes. */
  constructor(terms: readonly Term[]) {
    super();
    const [first] = terms;
    if (!first) throw new ArgumentError("a sum of weights needs a term");
    const other = terms.find(({ weight }) => !sameShape(weight.shape, first.weight.shape));
    if (other)
      throw new ShapeError(
        `the terms ${formatShape(first.weight.shape)} and ${formatShape(other.weight.shape)} of a sum differ in shape`,
      );
    this.terms = terms.map(({ weight, scale = 1 }) => ({ weight, scale }));
  }

  override get shape(): readonly [number, number] {
    return this.terms[0]!.weight.shape;
  }

  override get attributes(): Readonly<Record<string, unknown>> {
    return { scales: this.terms.map(({ scale }) => scale) };
  }

  override apply(x: Tensor): Tensor {
    return this.#total((weight) => weight.apply(x));
  }

  override rows(ids: Tensor): Tensor {
    return this.#total((weight) => weight.rows(ids));
  }

  override dense(): Tensor {
    return this.#total((weight) => weight.dense());
  }

  #total(of: (weight: Weight) => Tensor): Tensor {
    return this.terms.map(({ weight, scale }) => (scale === 1 ? of(weight) : mul(of(weight), scale))).reduce(add);
  }

  override [children](): Record<string, Weight> {
    return Object.fromEntries(this.terms.map(({ weight }, i) => [i, weight]));
  }

  override [rebuild](parts: Record<string, unknown>): SumWeight {
    return new SumWeight(this.terms.map(({ scale }, i) => ({ weight: parts[i] as Weight, scale })));
  }
}
