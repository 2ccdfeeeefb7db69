import { broadcastShapes, type Dim, formatShape, sameShape, sizeOf } from "../dims.ts";
import { isFloat } from "../dtype.ts";
import { ArgumentError, DTypeError, ShapeError } from "../errors.ts";
import { asTensor, defineOp, op, type Tensor, type TensorLike, type TensorType, within } from "../tensor.ts";
import { add, mul } from "./elementwise.ts";
import { sumToLike } from "./fill.ts";
import { sum } from "./reduce.ts";
import { reshape, transpose, unsqueeze } from "./shape.ts";

/** @throws DTypeError where the tensors cannot be multiplied and added. */
function checkTypes(...tensors: readonly Tensor[]): void {
  const { dtype } = tensors[0]!;
  const other = tensors.find((t) => t.dtype !== dtype);
  if (other)
    throw new DTypeError(`its operands differ in element type (${dtype} and ${other.dtype}); cast one of them`);
  if (dtype === "bool") throw new DTypeError("it takes numbers, not bool; cast its operands");
}

function matmulType(a: Tensor, b: Tensor): TensorType {
  checkTypes(a, b);
  if (a.rank === 0 || b.rank === 0) throw new ShapeError("a scalar cannot be multiplied as a matrix");
  const [left, right] = [a.rank === 1 ? [1, ...a.shape] : a.shape, b.rank === 1 ? [...b.shape, 1] : b.shape];
  const inner = [left[left.length - 1]!, right[right.length - 2]!];
  if (inner[0] !== inner[1])
    throw new ShapeError(
      `inner dimensions ${inner[0]} and ${inner[1]} of ${formatShape(a.shape)} and ${formatShape(b.shape)} differ`,
    );
  const batch = broadcastShapes(left.slice(0, -2), right.slice(0, -2));
  if (!batch)
    throw new ShapeError(`batch dimensions of ${formatShape(a.shape)} and ${formatShape(b.shape)} do not broadcast`);
  const shape: Dim[] = [...batch];
  if (a.rank > 1) shape.push(left[left.length - 2]!);
  if (b.rank > 1) shape.push(right[right.length - 1]!);
  return { dtype: a.dtype, shape };
}

/** All axes but the last merged, so that a stack of matrices times one matrix is a single product. */
function rows(x: Tensor): Tensor {
  return x.rank === 2 ? x : reshape(x, [sizeOf(x.shape.slice(0, -1)), x.shape[x.rank - 1]!]);
}

defineOp({
  name: "MatMul",
  arity: [2, 2],
  infer: ({ input }) => [matmulType(input(0), input(1))],
  vjp: ({ cotangents, input, needs }) => {
    let [a, b, dy] = [input(0), input(1), cotangents[0]!];
    const [vectorA, vectorB] = [a.rank === 1, b.rank === 1];
    if (vectorA) [a, dy] = [unsqueeze(a, 0), unsqueeze(dy, vectorB ? -1 : -2)];
    if (vectorB) b = unsqueeze(b, 1);
    if (vectorB) dy = unsqueeze(dy, -1);
    const da = needs[0] ? sumToLike(matmul(dy, transpose(b)), a) : null;
    const db = !needs[1]
      ? null
      : b.rank === 2
        ? matmul(transpose(rows(a)), rows(dy))
        : sumToLike(matmul(transpose(a), dy), b);
    return [da && vectorA ? reshape(da, input(0).shape) : da, db && vectorB ? reshape(db, input(1).shape) : db];
  },
});

/** Matrix product over the last two axes; leading axes broadcast, vectors are taken as a row or a column. */
export function matmul(a: TensorLike, b: TensorLike): Tensor {
  return op("MatMul", [asTensor(a), asTensor(b)]);
}

/** `x [..., in]` times the transpose of `weight [out, in]`, plus `bias [out]`: a linear layer. */
export function linear(x: TensorLike, weight: TensorLike, bias?: TensorLike | null): Tensor {
  const y = matmul(x, transpose(weight));
  return bias === undefined || bias === null ? y : add(y, bias);
}

defineOp({
  name: "Gemm",
  attrs: { alpha: "float", beta: "float", transA: "int", transB: "int" },
  arity: [2, 3],
  infer: ({ input, attrs, inputs }) => {
    const [a, b] = [input(0), input(1)];
    checkTypes(...inputs.filter((t) => t !== null));
    if (a.rank !== 2 || b.rank !== 2)
      throw new ShapeError(`it takes matrices, not ${formatShape(a.shape)} and ${formatShape(b.shape)}`);
    const flipped = (t: Tensor, by: unknown): Dim[] => (by === 1 ? [t.shape[1]!, t.shape[0]!] : [...t.shape]);
    const [[m, k], [k2, n]] = [flipped(a, attrs.transA), flipped(b, attrs.transB)] as [[Dim, Dim], [Dim, Dim]];
    if (k !== k2) throw new ShapeError(`inner dimensions ${k} and ${k2} differ`);
    const full = inputs[2] ? broadcastShapes([m, n], inputs[2].shape) : [m, n];
    if (!full || !sameShape(full, [m, n]))
      throw new ShapeError(`${formatShape(inputs[2]!.shape)} does not broadcast to ${formatShape([m, n])}`);
    return [{ dtype: a.dtype, shape: [m, n] }];
  },
  expand: ([a, b, c], attrs) => {
    const product = matmul(attrs.transA === 1 ? transpose(a!) : a!, attrs.transB === 1 ? transpose(b!) : b!);
    const scaled = attrs.alpha === undefined || attrs.alpha === 1 ? product : mul(product, attrs.alpha as number);
    if (!c) return [scaled];
    return [add(scaled, attrs.beta === undefined || attrs.beta === 1 ? c : mul(c, attrs.beta as number))];
  },
});

// --------------------------------------------------------------------------------------------------- einsum

interface Operand {
  labels: string[];
  x: Tensor;
}

/** Sums away the labels of one operand that nobody else needs. */
function withoutLonely(operand: Operand, needed: ReadonlySet<string>): Operand {
  const lonely = operand.labels.flatMap((label, i) => (needed.has(label) ? [] : [i]));
  if (lonely.length === 0) return operand;
  return { labels: operand.labels.filter((label) => needed.has(label)), x: sum(operand.x, { axes: lonely }) };
}

/** The operand with exactly `labels`, in that order; missing ones get length 1. */
function arranged({ labels, x }: Operand, wanted: readonly string[]): Tensor {
  const present = wanted.filter((label) => labels.includes(label));
  const moved = transpose(
    x,
    present.map((label) => labels.indexOf(label)),
  );
  const missing = wanted.flatMap((label, i) => (labels.includes(label) ? [] : [i]));
  return missing.length === 0 ? moved : unsqueeze(moved, missing);
}

function contract(a: Operand, b: Operand, keep: ReadonlySet<string>): Operand {
  const left = withoutLonely(a, new Set([...keep, ...b.labels]));
  const right = withoutLonely(b, new Set([...keep, ...a.labels]));
  const shared = left.labels.filter((l) => right.labels.includes(l));
  const inner = shared.filter((l) => !keep.has(l));
  const batch = shared.filter((l) => keep.has(l));
  const mine = left.labels.filter((l) => !shared.includes(l));
  const theirs = right.labels.filter((l) => !shared.includes(l));
  if (inner.length === 0) {
    const labels = [...batch, ...mine, ...theirs];
    return { labels, x: mul(arranged(left, labels), arranged(right, labels)) };
  }
  const dims = new Map([
    ...left.labels.map((l, i) => [l, left.x.shape[i]!] as const),
    ...right.labels.map((l, i) => [l, right.x.shape[i]!] as const),
  ]);
  const sizes = (labels: readonly string[]): Dim[] => labels.map((l) => dims.get(l)!);
  const merged = (t: Tensor, first: readonly string[], second: readonly string[]): Tensor =>
    first.length === 1 && second.length === 1
      ? t
      : reshape(
          t,
          [
            ...sizes(batch),
            first.length === 1 ? dims.get(first[0]!)! : sizeOf(sizes(first)),
            second.length === 1 ? dims.get(second[0]!)! : sizeOf(sizes(second)),
          ],
          [t],
        );
  const lhs = merged(
    transpose(
      left.x,
      [...batch, ...mine, ...inner].map((l) => left.labels.indexOf(l)),
    ),
    mine,
    inner,
  );
  const rhs = merged(
    transpose(
      right.x,
      [...batch, ...inner, ...theirs].map((l) => right.labels.indexOf(l)),
    ),
    inner,
    theirs,
  );
  const labels = [...batch, ...mine, ...theirs];
  return { labels, x: reshape(matmul(lhs, rhs), sizes(labels), [left.x, right.x]) };
}

/**
 * Einstein summation: `einsum("bqd,bkd->bqk", q, k)`. Each operand's axes are named by letters; letters missing
 * behind the arrow are summed. Built from transpositions and matrix products, two operands at a time from the left.
 * @throws ArgumentError for a malformed equation; ShapeError where a letter has two lengths.
 */
export function einsum(equation: string, ...values: readonly TensorLike[]): Tensor {
  return within("einsum", values, () => contractAll(equation, values));
}

function contractAll(equation: string, values: readonly TensorLike[]): Tensor {
  const match = /^([a-zA-Z,\s]+)(?:->([a-zA-Z\s]*))?$/.exec(equation);
  if (!match) throw new ArgumentError(`"${equation}" is not of the form "ab,bc->ac"`);
  const terms = match[1]!.replace(/\s/g, "").split(",");
  if (terms.length !== values.length)
    throw new ArgumentError(`"${equation}" names ${terms.length} operands, ${values.length} were given`);
  const dims = new Map<string, Dim>();
  const operands = terms.map((term, i): Operand => {
    const x = asTensor(values[i]!);
    const labels = [...term];
    if (labels.length !== x.rank)
      throw new ShapeError(`"${term}" names ${labels.length} axes, operand ${i} has shape ${formatShape(x.shape)}`);
    if (new Set(labels).size !== labels.length)
      throw new ArgumentError(`"${term}" repeats a letter; diagonals are not supported`);
    labels.forEach((label, axis) => {
      const [seen, here] = [dims.get(label), x.shape[axis]!];
      if (seen !== undefined && seen !== here)
        throw new ShapeError(`"${label}" is ${seen} in one operand of "${equation}" and ${here} in another`);
      dims.set(label, here);
    });
    return { labels, x };
  });
  const output =
    match[2] === undefined
      ? [...dims.keys()].filter((l) => terms.join("").split(l).length === 2).sort()
      : [...match[2].replace(/\s/g, "")];
  if (new Set(output).size !== output.length)
    throw new ArgumentError(`"${equation}" repeats a letter behind the arrow; diagonals are not supported`);
  const unknown = output.find((l) => !dims.has(l));
  if (unknown) throw new ArgumentError(`"${unknown}" behind the arrow occurs in no operand of "${equation}"`);
  let result = operands[0]!;
  for (let i = 1; i < operands.length; i++) {
    const later = operands.slice(i + 1).flatMap((o) => o.labels);
    result = contract(result, operands[i]!, new Set([...output, ...later]));
  }
  result = withoutLonely(result, new Set(output));
  return transpose(
    result.x,
    output.map((l) => result.labels.indexOf(l)),
  );
}

defineOp({
  name: "Einsum",
  attrs: { equation: "string" },
  arity: [1, Infinity],
  infer: ({ inputs, attrs }) => {
    const t = einsum(attrs.equation as string, ...(inputs as Tensor[]));
    if (!isFloat(t.dtype)) throw new DTypeError(`it takes floating-point numbers, not ${t.dtype}`);
    return [t];
  },
  expand: (inputs, attrs) => [einsum(attrs.equation as string, ...(inputs as Tensor[]))],
});

defineOp({
  name: "com.microsoft.FusedMatMul",
  attrs: { alpha: "float", transA: "int", transB: "int" },
  arity: [2, 2],
  infer: ({ input, attrs }) => {
    const a = attrs.transA === 1 ? transpose(input(0)) : input(0);
    const b = attrs.transB === 1 ? transpose(input(1)) : input(1);
    return [matmulType(a, b)];
  },
  expand: ([a, b], attrs) => {
    const product = matmul(attrs.transA === 1 ? transpose(a!) : a!, attrs.transB === 1 ? transpose(b!) : b!);
    return [attrs.alpha === undefined || attrs.alpha === 1 ? product : mul(product, attrs.alpha as number)];
  },
});
