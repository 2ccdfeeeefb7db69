import { addDims, type Dim, divideDims, floorDivideDims, multiplyDims, subtractDims } from "./dims.ts";
import type { DType } from "./dtype.ts";
import { constantOf, type Tensor } from "./tensor.ts";

/** Longest integer vector that is followed through a graph; shapes and axes are far shorter. */
const MAX_KNOWN = 64;
const MAX_NAME = 256;

/** The types that shapes come in, with the largest number of each that is followed: an overflow is left to onnxruntime. */
const LARGEST: Partial<Record<DType, number>> = { i64: Number.MAX_SAFE_INTEGER, i32: 2 ** 31 - 1 };

const cache = new WeakMap<Tensor, readonly Dim[] | null>();

/**
 * The entries of an integer vector or scalar as far as the graph tells them, names included: the shape that
 * a `Reshape` is given, followed back through `Shape`, `Concat`, `Gather` and arithmetic. Undefined where
 * an entry depends on data.
 */
export function knownInts(t: Tensor | null | undefined): readonly Dim[] | undefined {
  const largest = t && t.rank <= 1 ? LARGEST[t.dtype] : undefined;
  if (!t || largest === undefined) return undefined;
  let found = cache.get(t);
  if (found === undefined) {
    found = compute(t) ?? null;
    if (found && (found.length > MAX_KNOWN || found.some((n) => !isFollowed(n, largest)))) found = null;
    cache.set(t, found);
  }
  return found ?? undefined;
}

/** An overflow is not followed, nor are names that arithmetic has grown beyond any shape's. Infinity stays as it is. */
function isFollowed(n: Dim, largest: number): boolean {
  return typeof n === "string" ? n.length <= MAX_NAME : Math.abs(n) <= largest || !Number.isFinite(n);
}

/** As `knownInts`, but plain numbers only. */
export function knownNumbers(t: Tensor | null | undefined): readonly number[] | undefined {
  const dims = knownInts(t);
  return dims?.every((d) => typeof d === "number") ? (dims as readonly number[]) : undefined;
}

function compute(t: Tensor): readonly Dim[] | undefined {
  const value = constantOf(t);
  // The ends of the 64-bit range stand for "to the end" in slices.
  if (value)
    return value.size <= MAX_KNOWN
      ? value.toArray().map((n) => (Number.isSafeInteger(n) ? n : Math.sign(n) * Number.POSITIVE_INFINITY))
      : undefined;
  const { op, inputs, attrs } = t.node;
  const of = (i: number): readonly Dim[] | undefined => knownInts(inputs[i]);
  switch (op) {
    case "Shape": {
      const shape = inputs[0]!.shape;
      return shape.slice((attrs.start as number | undefined) ?? 0, attrs.end as number | undefined);
    }
    case "Size":
      return [inputs[0]!.shape.reduce<Dim>(multiplyDims, 1)];
    case "Concat": {
      const parts = inputs.map((_, i) => of(i));
      return parts.every((p) => p !== undefined) ? (parts.flat() as Dim[]) : undefined;
    }
    case "Identity":
    case "Unsqueeze":
    case "Squeeze":
    case "Reshape":
    case "Cast":
      return of(0);
    case "Gather": {
      const source = of(0);
      const picks = knownNumbers(inputs[1]);
      return source && picks?.every((i) => i >= -source.length && i < source.length)
        ? picks.map((i) => source.at(i)!)
        : undefined;
    }
    case "Slice": {
      const source = of(0);
      const [start, end] = [knownNumbers(inputs[1])?.[0], knownNumbers(inputs[2])?.[0]];
      const step = inputs[4] ? knownNumbers(inputs[4])?.[0] : 1;
      return source && start !== undefined && end !== undefined && step === 1 ? source.slice(start, end) : undefined;
    }
    case "Add":
      return combine(of(0), of(1), addDims);
    case "Sub":
      return combine(of(0), of(1), subtractDims);
    case "Mul":
      return combine(of(0), of(1), multiplyDims);
    case "Div":
      return combine(of(0), of(1), quotient);
    default:
      return undefined;
  }
}

/** ONNX rounds towards zero; a dimension is never negative, so that its quotient is the floor. */
function quotient(a: Dim, b: Dim): Dim | undefined {
  if (typeof b !== "number") return divideDims(a, b);
  if (b === 0) return undefined;
  return typeof a === "number" ? Math.trunc(a / b) : b > 0 ? floorDivideDims(a, b) : undefined;
}

function combine(
  a: readonly Dim[] | undefined,
  b: readonly Dim[] | undefined,
  rule: (a: Dim, b: Dim) => Dim | undefined,
): readonly Dim[] | undefined {
  if (!a || !b) return undefined;
  const length = Math.max(a.length, b.length);
  if ((a.length !== length && a.length !== 1) || (b.length !== length && b.length !== 1)) return undefined;
  const result: Dim[] = [];
  for (let i = 0; i < length; i++) {
    const value = rule(a[a.length === 1 ? 0 : i]!, b[b.length === 1 ? 0 : i]!);
    if (value === undefined) return undefined;
    result.push(value);
  }
  return result;
}
