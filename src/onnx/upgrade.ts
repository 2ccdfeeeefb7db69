import { defineOp, findOp, type Tensor } from "../tensor/index.ts";
import { importedOperators } from "./operators/index.ts";
import { changedRules } from "./rules/changed.ts";
import { composedRules } from "./rules/composed.ts";
import { movedRules } from "./rules/moved.ts";
import { narrowedRules } from "./rules/narrowed.ts";
import { resizeRules } from "./rules/resize.ts";
import { apply, type ForeignNode, type Kinds } from "./rules/rule.ts";

for (const def of importedOperators) defineOp(def);

const rules = new Map(
  [...changedRules, ...composedRules, ...movedRules, ...narrowedRules, ...resizeRules].flatMap((rule) =>
    rule.names.map((name) => [name, rule]),
  ),
);

export interface Signature {
  readonly attrs: Kinds;
  /** Least and most number of inputs. */
  readonly arity: readonly [number, number];
}

const signatures = new Map<string, Signature>();

/** What an operator of a file may look like, or undefined where it is unknown. */
export function signatureOf(op: string, version: number): Signature | undefined {
  const key = `${op} ${version}`;
  const known = signatures.get(key) ?? makeSignature(op, version);
  if (known) signatures.set(key, known);
  return known;
}

function makeSignature(op: string, version: number): Signature | undefined {
  const def = op.startsWith("pare.") ? undefined : findOp(op);
  const rule = rules.get(op);
  const arity = rule?.arity ?? def?.arity;
  if (!arity) return undefined;
  const legacy: Kinds = version < 6 ? { consumed_inputs: "ints" } : {};
  return { attrs: { ...def?.attrs, ...legacy, ...rule?.attrs?.(version) }, arity };
}

/** The outputs of a node of any operator set as operations of the table. @throws ArgumentError, ShapeError, DTypeError */
export function upgrade(node: ForeignNode): readonly Tensor[] {
  const { consumed_inputs: _advice, ...attrs } = node.attrs;
  const bare = { ...node, attrs };
  return rules.get(node.op)?.build(bare) ?? apply(bare);
}
