import { addDims, type Dim, divideDims, floorDivideDims, multiplyDims, sizeOf, subtractDims } from "./dims.ts";
import type { DType } from "./dtype.ts";
import type { HostTensor } from "./host.ts";
import { constantOf, type Tensor } from "./tensor.ts";

/** Longest integer vector that is followed through a graph; shapes and axes are far shorter. */
const MAX_KNOWN = 64;
const MAX_NAME = 256;

/**
 * The types that are followed, with the largest number of each: an overflow is left to onnxruntime. Shapes are
 * integers; exporters also compute them by way of floats (`floor(height * 0.5)`) and conditions (`where(n == -1, 1, n)`).
 */
const LARGEST: Partial<Record<DType, number>> = {
  i64: Number.MAX_SAFE_INTEGER,
  i32: 2 ** 31 - 1,
  f32: Number.POSITIVE_INFINITY,
  bool: 1,
};

const cache = new WeakMap<Tensor, readonly Dim[] | null>();

/**
 * The entries of an integer vector or scalar as far as the graph tells them, names included: the shape that
 * a `Reshape` is given, followed back through `Shape`, `Concat`, `Gather` and arithmetic. Undefined where
 * an entry depends on data.
 */
export function knownInts(t: Tensor | null | undefined): readonly Dim[] | undefined {
  const found = known(t);
  return t?.dtype === "i64" || t?.dtype === "i32" ? found : undefined;
}

function known(t: Tensor | null | undefined): readonly Dim[] | undefined {
  const largest = t && t.rank <= 1 ? LARGEST[t.dtype] : undefined;
  if (!t || largest === undefined) return undefined;
  let found = cache.get(t);
  if (found === undefined) {
    found = compute(t) ?? null;
    if (t.dtype === "f32") found = found?.map((n) => Math.fround(n as number)) ?? null;
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
  return allNumbers(knownInts(t));
}

function compute(t: Tensor): readonly Dim[] | undefined {
  const value = constantOf(t);
  if (value) return value.size <= MAX_KNOWN ? entriesOf(value) : undefined;
  const { op, inputs, attrs } = t.node;
  const of = (i: number): readonly Dim[] | undefined => known(inputs[i]);
  const numbers = (i: number): readonly number[] | undefined => allNumbers(of(i));
  switch (op) {
    case "Shape": {
      const shape = inputs[0]!.shape;
      return shape.slice((attrs.start as number | undefined) ?? 0, attrs.end as number | undefined);
    }
    case "Size":
      return [sizeOf(inputs[0]!.shape)];
    case "Concat": {
      const parts = inputs.map((_, i) => of(i));
      return parts.every((p) => p !== undefined) ? (parts.flat() as Dim[]) : undefined;
    }
    case "Identity":
    case "Unsqueeze":
    case "Squeeze":
    case "Reshape":
      return of(0);
    case "Cast":
      return castTo(t.dtype, inputs[0]!.dtype, of(0));
    case "Gather": {
      const source = of(0);
      const picks = numbers(1);
      return source && picks?.every((i) => i >= -source.length && i < source.length)
        ? picks.map((i) => source.at(i)!)
        : undefined;
    }
    case "Slice": {
      const source = of(0);
      const [start, end] = [numbers(1)?.[0], numbers(2)?.[0]];
      const step = inputs[4] ? numbers(4)?.[0] : 1;
      return source && start !== undefined && end !== undefined && step === 1 ? source.slice(start, end) : undefined;
    }
    case "Expand":
      return repeated(of(0), numbers(1));
    case "ConstantOfShape":
      return repeated([(attrs.value as HostTensor | undefined)?.item() ?? 0], numbers(0));
    case "Range": {
      const [start, limit, delta] = [numbers(0)?.[0], numbers(1)?.[0], numbers(2)?.[0]];
      if (start === undefined || limit === undefined || !delta) return undefined;
      const count = Math.max(0, Math.ceil((limit - start) / delta));
      return count <= MAX_KNOWN ? Array.from({ length: count }, (_, i) => start + i * delta) : undefined;
    }
    case "ReduceProd":
      return attrs.noop_with_empty_axes === 1 ? undefined : of(0) && [of(0)!.reduce(multiplyDims, 1)];
    case "Add":
      return combine(of(0), of(1), addDims);
    case "Sub":
      return combine(of(0), of(1), subtractDims);
    case "Mul":
      return combine(of(0), of(1), multiplyDims);
    case "Div":
      return combine(of(0), of(1), t.dtype === "f32" ? onNumbers((a, b) => a / b) : quotient);
    case "Min":
      return inputs.map((_, i) => of(i)).reduce((a, b) => combine(a, b, onNumbers(Math.min)));
    case "Max":
      return inputs.map((_, i) => of(i)).reduce((a, b) => combine(a, b, onNumbers(Math.max)));
    case "Neg":
      return of(0)?.map((d) => multiplyDims(-1, d));
    case "Floor":
      return numbers(0)?.map(Math.floor);
    case "Ceil":
      return numbers(0)?.map(Math.ceil);
    case "Equal":
      return combine(of(0), of(1), equalDims);
    case "Less":
      return combine(
        of(0),
        of(1),
        onNumbers((a, b) => (a < b ? 1 : 0)),
      );
    case "Greater":
      return combine(
        of(0),
        of(1),
        onNumbers((a, b) => (a > b ? 1 : 0)),
      );
    case "Not":
      return numbers(0)?.map((n) => 1 - n);
    case "Where": {
      // The condition picks a side in the first step, or leaves it open in the second.
      const yes = combine(of(0), of(1), (condition, a) => (condition === 0 ? Number.NaN : a));
      return combine(yes, of(2), (a, b) => (Number.isNaN(a) ? b : a));
    }
    default:
      return undefined;
  }
}

/** The ends of the 64-bit range stand for "to the end" in slices. */
function entriesOf(value: HostTensor): readonly number[] {
  const ends = (n: number): number => (Number.isSafeInteger(n) ? n : Math.sign(n) * Number.POSITIVE_INFINITY);
  return value.dtype === "i64" ? value.toArray().map(ends) : value.toArray();
}

function allNumbers(dims: readonly Dim[] | undefined): readonly number[] | undefined {
  return dims?.every((d) => typeof d === "number") ? (dims as readonly number[]) : undefined;
}

function castTo(to: DType, from: DType, dims: readonly Dim[] | undefined): readonly Dim[] | undefined {
  if (to === "i64" || to === "i32") return from === "f32" ? allNumbers(dims)?.map(Math.trunc) : dims;
  return allNumbers(dims)?.map((n) => (to === "bool" && n !== 0 ? 1 : n));
}

/** One entry as often as a shape of at most one dimension says. */
function repeated(dims: readonly Dim[] | undefined, shape: readonly number[] | undefined): readonly Dim[] | undefined {
  if (!dims || !shape || shape.length > 1) return undefined;
  const count = shape[0] ?? 1;
  if (dims.length !== 1) return count === dims.length || count === 1 ? dims : undefined;
  return count <= MAX_KNOWN ? Array.from({ length: count }, () => dims[0]!) : undefined;
}

const onNumbers =
  (rule: (a: number, b: number) => number) =>
  (a: Dim, b: Dim): Dim | undefined =>
    typeof a === "number" && typeof b === "number" ? rule(a, b) : undefined;

/** A name equals itself and no negative number; whether it equals another dimension shows only at run time. */
function equalDims(a: Dim, b: Dim): Dim | undefined {
  if (a === b) return 1;
  const [lower, other] = typeof a === "number" ? [a, b] : [b, a];
  return typeof other === "number" || (typeof lower === "number" && lower < 0 && isName(other)) ? 0 : undefined;
}

/** A sum may have negative terms. */
const isName = (dim: Dim): boolean => typeof dim === "string" && !dim.includes("-");

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
