import { type AttrKind, type Attrs, applyOp, type Tensor } from "../../tensor/index.ts";

/** An operation as a file of any age has it, its inputs traced already. */
export interface ForeignNode {
  /** Name with its domain: `Conv`, `com.microsoft.FusedMatMul`. */
  readonly op: string;
  /** Operator set of its domain. */
  readonly version: number;
  readonly inputs: readonly (Tensor | null)[];
  readonly attrs: Attrs;
  readonly outputCount: number;
}

export type Kinds = Readonly<Record<string, AttrKind>>;

/** How operators that are not, or were not always, as in the table of operations become operations of the table. */
export interface Rule {
  readonly names: readonly string[];
  /** Attributes in the operator set `version` that the table does not have. */
  attrs?(version: number): Kinds;
  /** Least and most number of inputs where it is not the table's. */
  readonly arity?: readonly [number, number];
  build(node: ForeignNode): readonly Tensor[];
}

/** The operation of the same name in the table. */
export function apply({ op, inputs, attrs, outputCount }: ForeignNode): readonly Tensor[] {
  return applyOp(op, inputs, attrs, outputCount);
}

/** Attributes that were there before operator set `set`. */
export const before =
  (set: number, kinds: Kinds) =>
  (version: number): Kinds =>
    version < set ? kinds : {};

export const without = (attrs: Attrs, ...names: readonly string[]): Attrs =>
  Object.fromEntries(Object.entries(attrs).filter(([name]) => !names.includes(name)));
