import {
  broadcastShapes,
  constantOf,
  fill,
  findOp,
  type HostTensor,
  isFloat,
  isStatic,
  type Node,
  op,
  reshape,
  sameShape,
  type Tensor,
  transpose,
} from "../tensor/index.ts";

interface Context {
  readonly portable: boolean;
}

type Rule = (node: Node, inputs: readonly Tensor[], context: Context) => Tensor | undefined;

/** Operations whose inputs broadcast, so that stretching one beforehand is wasted. */
const BROADCASTING = new Set([
  "Add",
  "Sub",
  "Mul",
  "Div",
  "Pow",
  "Max",
  "Min",
  "Mod",
  "Where",
  "Equal",
  "Greater",
  "GreaterOrEqual",
  "Less",
  "LessOrEqual",
  "And",
  "Or",
  "Xor",
]);

/** The value of a one-element constant, however many dimensions of length 1 it has. */
function single(t: Tensor): number | undefined {
  const value: HostTensor | undefined = constantOf(t);
  return value?.size === 1 ? value.item() : undefined;
}

/** `x` where it already has the shape and type of the node's result. */
const ifSame = (x: Tensor, node: Node): Tensor | undefined =>
  sameShape(x.shape, node.outputs[0]!.shape) && x.dtype === node.outputs[0]!.dtype ? x : undefined;

const withoutExpand: Rule = (node, inputs) => {
  if (!inputs.some((t) => t.node.op === "Expand")) return undefined;
  const shape = node.outputs[0]!.shape;
  let next = [...inputs];
  let changed = false;
  inputs.forEach((t, i) => {
    if (t.node.op !== "Expand") return;
    const tried = next.map((u, k) => (k === i ? t.node.inputs[0]! : u));
    const result = broadcastShapes(...tried.map((u) => u.shape));
    if (result && sameShape(result, shape)) {
      next = tried;
      changed = true;
    }
  });
  return changed ? op(node.op, next, node.attrs) : undefined;
};

const rules: Readonly<Record<string, Rule>> = {
  Identity: (_node, [x]) => x,
  Cast: (node, [x]) => ifSame(x!, node),
  Expand: (node, [x]) => ifSame(x!, node),
  Squeeze: (node, [x]) => (isStatic(node.outputs[0]!.shape) ? reshape(x!, node.outputs[0]!.shape) : undefined),
  Unsqueeze: (node, [x]) => (isStatic(node.outputs[0]!.shape) ? reshape(x!, node.outputs[0]!.shape) : undefined),
  Flatten: (node, [x]) => (isStatic(node.outputs[0]!.shape) ? reshape(x!, node.outputs[0]!.shape) : undefined),
  Reshape: (node, [x]) => {
    const target = node.outputs[0]!.shape;
    if (sameShape(x!.shape, target)) return x;
    return x!.node.op === "Reshape" && isStatic(target) ? reshape(x!.node.inputs[0]!, target) : undefined;
  },
  Transpose: (node, [x], context) => {
    const order = orderOf(node, x!);
    if (order.every((p, i) => p === i)) return x;
    if (x!.node.op === "Transpose") {
      const inner = orderOf(x!.node, x!.node.inputs[0]!);
      const joined = order.map((p) => inner[p]!);
      // A swap of the last two axes is left for the product that may read it so.
      const kept = !context.portable && swapsLastTwo(node) && joined.some((p, i) => p !== i);
      if (!kept) return transpose(x!.node.inputs[0]!, joined);
    }
    if (x!.rank === 2 && isFloat(x!.dtype) && order[0] === 1) {
      const turned = turnedProduct(x!.node);
      if (turned) return turned;
    }
    // Moving an axis of length 1 moves no number.
    const moved = order.filter((p) => x!.shape[p] !== 1);
    const target = node.outputs[0]!.shape;
    return moved.every((p, i) => i === 0 || p > moved[i - 1]!) && isStatic(target) ? reshape(x!, target) : undefined;
  },
  Concat: (_node, inputs) => (inputs.length === 1 ? inputs[0] : undefined),
  Add: (node, [a, b]) => (single(b!) === 0 ? ifSame(a!, node) : single(a!) === 0 ? ifSame(b!, node) : undefined),
  Sub: (node, [a, b]) => (single(b!) === 0 ? ifSame(a!, node) : undefined),
  Mul: (node, [a, b]) => (single(b!) === 1 ? ifSame(a!, node) : single(a!) === 1 ? ifSame(b!, node) : undefined),
  Div: (node, [a, b]) => (single(b!) === 1 ? ifSame(a!, node) : undefined),
  Neg: (_node, [x]) => (x!.node.op === "Neg" ? x!.node.inputs[0]! : undefined),
  // onnxruntime's CPU kernel combines repeated indices in several threads without a lock; the expansion goes in order.
  ScatterND: (node, inputs, { portable }) =>
    portable || (node.attrs.reduction ?? "none") === "none"
      ? undefined
      : findOp("ScatterND")!.expand!(inputs, node.attrs, 1)[0],
  MatMul: (node, [a, b], context) => overNothing(node, a!, b!) ?? fuseProduct(node, a!, b!, context),
  "com.microsoft.FusedMatMul": (node, [a, b]) => overNothing(node, a!, b!),
};

function orderOf(node: Node, x: Tensor): readonly number[] {
  return (node.attrs.perm as readonly number[] | undefined) ?? x.shape.map((_, i) => x.rank - 1 - i);
}

/** Whether a transposition swaps the last two axes and nothing else. */
function swapsLastTwo(node: Node): boolean {
  const rank = node.inputs[0]!.rank;
  return rank >= 2 && orderOf(node, node.inputs[0]!).every((p, i) => p === (i < rank - 2 ? i : 2 * rank - 3 - i));
}

/** The transpose of a matrix product as another product: a gradient of a transposed weight comes this way. */
function turnedProduct({ op: name, inputs, attrs }: Node): Tensor | undefined {
  const [a, b] = inputs;
  if ((name !== "MatMul" && name !== "Gemm") || inputs.length !== 2) return undefined;
  const { transA = 0, transB = 0, ...rest } = attrs as { transA?: number; transB?: number };
  return op("Gemm", [b!, a!], { ...rest, transA: 1 - transB, transB: 1 - transA });
}

/** A matrix as the product `factor * base`, or of its transpose: what a fused kernel can read directly. */
function factored(t: Tensor): { base: Tensor; transposed: boolean; factor: number } {
  let [base, transposed, factor] = [t, false, 1];
  for (;;) {
    const { op: name, inputs } = base.node;
    const [x, y] = inputs;
    if (name === "Transpose" && swapsLastTwo(base.node)) [base, transposed] = [x!, !transposed];
    else if (name === "Mul" && single(y!) !== undefined && sameShape(x!.shape, base.shape))
      [base, factor] = [x!, factor * single(y!)!];
    else if (name === "Mul" && single(x!) !== undefined && sameShape(y!.shape, base.shape))
      [base, factor] = [y!, factor * single(x!)!];
    else return { base, transposed, factor };
  }
}

/** Zeros for a product of vectors without elements, where onnxruntime leaves whatever its memory held. */
function overNothing(node: Node, a: Tensor, b: Tensor): Tensor | undefined {
  const inner = a.shape.at(node.attrs.transA === 1 && a.rank > 1 ? -2 : -1);
  const { shape, dtype } = node.outputs[0]!;
  return inner === 0 ? fill(0, shape, dtype, [a, b]) : undefined;
}

/**
 * A product that reads its operands transposed and scales its result, so that neither costs a pass of its own: `Gemm` for
 * matrices, else onnxruntime's `FusedMatMul`.
 */
function fuseProduct(node: Node, a: Tensor, b: Tensor, { portable }: Context): Tensor | undefined {
  if (!isFloat(a.dtype)) return undefined;
  const [left, right] = [factored(a), factored(b)];
  const alpha = left.factor * right.factor;
  if (!left.transposed && !right.transposed && alpha === 1) return undefined;
  const attrs = {
    transA: left.transposed ? 1 : 0,
    transB: right.transposed ? 1 : 0,
    ...(alpha === 1 ? {} : { alpha }),
  };
  if (a.rank === 2 && b.rank === 2) return op("Gemm", [left.base, right.base], attrs);
  if (b.rank === 2 && !left.transposed && isStatic(node.outputs[0]!.shape)) {
    const flat = reshape(left.base, [-1, a.shape[a.rank - 1]!]);
    return reshape(op("Gemm", [flat, right.base], attrs), node.outputs[0]!.shape);
  }
  if (portable || a.dtype !== "f32" || a.rank < 2 || b.rank < 2) return undefined;
  return op("com.microsoft.FusedMatMul", [left.base, right.base], attrs);
}

/** A simpler tensor equal to the node's only output, or undefined. `inputs` are the node's, already lowered. */
export function simplify(node: Node, inputs: readonly (Tensor | null)[], context: Context): Tensor | undefined {
  if (node.outputs.length !== 1 || inputs.some((t) => t === null)) return undefined;
  const present = inputs as readonly Tensor[];
  return (
    rules[node.op]?.(node, present, context) ??
    (BROADCASTING.has(node.op) ? withoutExpand(node, present, context) : undefined)
  );
}
