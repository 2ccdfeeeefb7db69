import { broadcastShapes, formatShape, type Shape } from "../dims.ts";
import { type DType, dtypes, isFloat, isInteger } from "../dtype.ts";
import { DTypeError, ShapeError } from "../errors.ts";
import { customVjp } from "../grad.ts";
import {
  type Attrs,
  asTensor,
  constantOf,
  defineOp,
  type InferContext,
  isHostTensor,
  isTensor,
  op,
  type Tensor,
  type TensorLike,
  type TensorType,
  type VjpContext,
  within,
} from "../tensor.ts";
import { sumToLike } from "./fill.ts";

type Unary = (x: TensorLike) => Tensor;
type Binary = (a: TensorLike, b: TensorLike) => Tensor;

// ------------------------------------------------------------------------------------------------ one input

const floatOnly = (t: Tensor): void => {
  if (!isFloat(t.dtype)) throw new DTypeError(`it takes floating-point numbers, not ${t.dtype}`);
};

/** Gradient of an elementwise function: `dy` times whatever the rule makes of input `x` and output `y`. */
type UnaryRule = ((dy: Tensor, x: Tensor, y: Tensor) => Tensor) | "flat";

function defineUnary(name: string, rule: UnaryRule, accepts: (t: Tensor) => void = floatOnly): Unary {
  defineOp({
    name,
    arity: [1, 1],
    infer: ({ input }) => {
      accepts(input(0));
      return [input(0)];
    },
    ...(rule === "flat"
      ? { flat: true }
      : { vjp: ({ cotangents, input, outputs }) => [rule(cotangents[0]!, input(0), outputs[0]!)] }),
  });
  return (x) => op(name, [asTensor(x)]);
}

const anyNumber = (t: Tensor): void => {
  if (t.dtype === "bool") throw new DTypeError("it takes numbers, not bool");
};
const signedOnly = (t: Tensor): void => {
  if (!isFloat(t.dtype) && dtypes[t.dtype].kind !== "int")
    throw new DTypeError(`it takes numbers with a sign, not ${t.dtype}`);
};
const anything = (): void => {};

export const neg: Unary = defineUnary("Neg", (dy) => neg(dy), signedOnly);
export const abs: Unary = defineUnary("Abs", (dy, x) => mul(dy, sign(x)), anyNumber);
export const exp: Unary = defineUnary("Exp", (dy, _x, y) => mul(dy, y));
export const log: Unary = defineUnary("Log", (dy, x) => div(dy, x));
export const sqrt: Unary = defineUnary("Sqrt", (dy, _x, y) => div(mul(dy, 0.5), y));
export const reciprocal: Unary = defineUnary("Reciprocal", (dy, _x, y) => neg(mul(dy, mul(y, y))));
export const erf: Unary = defineUnary("Erf", (dy, x) => mul(dy, mul(exp(neg(mul(x, x))), 2 / Math.sqrt(Math.PI))));
export const tanh: Unary = defineUnary("Tanh", (dy, _x, y) => mul(dy, sub(1, mul(y, y))));
export const sigmoid: Unary = defineUnary("Sigmoid", (dy, _x, y) => mul(dy, mul(y, sub(1, y))));
export const sin: Unary = defineUnary("Sin", (dy, x) => mul(dy, cos(x)));
export const cos: Unary = defineUnary("Cos", (dy, x) => neg(mul(dy, sin(x))));
export const tan: Unary = defineUnary("Tan", (dy, _x, y) => mul(dy, add(1, mul(y, y))));
export const asin: Unary = defineUnary("Asin", (dy, x) => div(dy, sqrt(sub(1, mul(x, x)))));
export const acos: Unary = defineUnary("Acos", (dy, x) => neg(div(dy, sqrt(sub(1, mul(x, x))))));
export const atan: Unary = defineUnary("Atan", (dy, x) => div(dy, add(1, mul(x, x))));
export const sinh: Unary = defineUnary("Sinh", (dy, x) => mul(dy, cosh(x)));
export const cosh: Unary = defineUnary("Cosh", (dy, x) => mul(dy, sinh(x)));
export const relu: Unary = defineUnary("Relu", (dy, _x, y) => mul(dy, cast(greater(y, 0), dy.dtype)));
export const softplus: Unary = defineUnary("Softplus", (dy, x) => mul(dy, sigmoid(x)));
export const floor: Unary = defineUnary("Floor", "flat");
export const ceil: Unary = defineUnary("Ceil", "flat");
/** Nearest whole number, ties to even. */
export const round: Unary = defineUnary("Round", "flat");
export const sign: Unary = defineUnary("Sign", "flat", anyNumber);
/** The same tensor; a place to hang a name on. */
export const identity: Unary = defineUnary("Identity", (dy) => dy, anything);

const predicate = (name: string, accepts: (t: Tensor) => void): Unary => {
  defineOp({
    name,
    ...(name === "IsInf" ? { attrs: { detect_negative: "int", detect_positive: "int" } } : {}),
    arity: [1, 1],
    flat: true,
    infer: ({ input }) => {
      accepts(input(0));
      return [{ dtype: "bool", shape: input(0).shape }];
    },
  });
  return (x) => op(name, [asTensor(x)]);
};

export const isNaN: Unary = predicate("IsNaN", floatOnly);
export const isInf: Unary = predicate("IsInf", floatOnly);
const boolOnly = (t: Tensor): void => {
  if (t.dtype !== "bool") throw new DTypeError(`it takes bool, not ${t.dtype}`);
};
export const not: Unary = predicate("Not", boolOnly);

const integersOnly = (t: Tensor): void => {
  if (!isInteger(t.dtype)) throw new DTypeError(`it takes integers, not ${t.dtype}`);
};
export const bitwiseNot: Unary = defineUnary("BitwiseNot", "flat", integersOnly);

defineOp({
  name: "Cast",
  attrs: { to: "int", saturate: "int" },
  arity: [1, 1],
  infer: ({ input, attrs }) => {
    const dtype = (Object.keys(dtypes) as DType[]).find((d) => dtypes[d].onnx === attrs.to);
    if (!dtype) throw new DTypeError(`there is no element type with the ONNX number ${String(attrs.to)}`);
    return [{ dtype, shape: input(0).shape }];
  },
  vjp: ({ cotangents, input }) => [isFloat(cotangents[0]!.dtype) ? cast(cotangents[0]!, input(0).dtype) : null],
});

/** `x` in another element type; floats go to integers by truncation. */
export function cast(x: TensorLike, dtype: DType): Tensor {
  const t = asTensor(x);
  return t.dtype === dtype ? t : op("Cast", [t], { to: dtypes[dtype].onnx });
}

// ----------------------------------------------------------------------------------------------- two inputs

/** Both operands as tensors; a number takes the other's element type. */
export function pair(a: TensorLike, b: TensorLike): [Tensor, Tensor] {
  const like = isTensor(a) || isHostTensor(a) ? a : isTensor(b) || isHostTensor(b) ? b : undefined;
  return [asTensor(a, like), asTensor(b, like)];
}

/** The shape that the tensors broadcast to. @throws ShapeError */
function broadcastShape(tensors: readonly Tensor[]): Shape {
  const shape = broadcastShapes(...tensors.map((t) => t.shape));
  if (!shape) throw new ShapeError(`shapes ${tensors.map((t) => formatShape(t.shape)).join(" and ")} do not broadcast`);
  return shape;
}

/** The broadcast type of all inputs, which must share an element type. */
export function broadcastType({ inputs }: InferContext, from = 0): TensorType {
  const present = inputs.slice(from).filter((t): t is Tensor => t !== null);
  const { dtype } = present[0]!;
  const other = present.find((t) => t.dtype !== dtype);
  if (other)
    throw new DTypeError(`its operands differ in element type (${dtype} and ${other.dtype}); cast one of them`);
  return { dtype, shape: broadcastShape(present) };
}

/** `name` of both operands, with attributes; an error names what it was given, numbers included. */
function applyPair(name: string, a: TensorLike, b: TensorLike, attrs: Attrs = {}): Tensor {
  return within(name, [a, b], () => op(name, pair(a, b), attrs));
}

type BinaryRule = (dy: Tensor, a: Tensor, b: Tensor, y: Tensor) => readonly [() => Tensor, () => Tensor];

function binaryVjp(rule: BinaryRule): (context: VjpContext) => (Tensor | null)[] {
  return ({ cotangents, input, outputs, needs }) => {
    const [a, b] = [input(0), input(1)];
    const [da, db] = rule(cotangents[0]!, a, b, outputs[0]!);
    return [needs[0] ? sumToLike(da(), a) : null, needs[1] ? sumToLike(db(), b) : null];
  };
}

function defineBinary(
  name: string,
  rule: BinaryRule | "flat",
  options: { attrs?: { [key: string]: "int" | "string" }; accepts?: (t: Tensor) => void } = {},
): Binary {
  const accepts = options.accepts ?? anyNumber;
  defineOp({
    name,
    ...(options.attrs ? { attrs: options.attrs } : {}),
    arity: [2, 2],
    infer: (context) => {
      for (const i of [0, 1]) accepts(context.input(i));
      return [broadcastType(context)];
    },
    ...(rule === "flat" ? { flat: true } : { vjp: binaryVjp(rule) }),
  });
  return (a, b) => applyPair(name, a, b);
}

export const add: Binary = defineBinary("Add", (dy) => [() => dy, () => dy]);
export const sub: Binary = defineBinary("Sub", (dy) => [() => dy, () => neg(dy)]);
export const mul: Binary = defineBinary("Mul", (dy, a, b) => [() => mul(dy, b), () => mul(dy, a)]);
export const div: Binary = defineBinary("Div", (dy, _a, b, y) => [() => div(dy, b), () => neg(div(mul(dy, y), b))]);

defineOp({
  name: "Pow",
  arity: [2, 2],
  infer: ({ input }) => {
    const [a, b] = [input(0), input(1)];
    for (const t of [a, b]) anyNumber(t);
    return [{ dtype: a.dtype, shape: broadcastShape([a, b]) }];
  },
  vjp: binaryVjp((dy, a, b, y) => [
    () => mul(dy, mul(cast(b, a.dtype), pow(a, lowered(a, b)))),
    () => cast(mul(dy, mul(y, where(greater(a, 0), log(where(greater(a, 0), a, 1)), 0))), b.dtype),
  ]),
});

/** The exponent minus 1, but 0 at 0^0, where the rule would multiply 0 by infinity. */
function lowered(a: Tensor, b: Tensor): Tensor {
  const exponent = constantOf(b);
  if (exponent && !exponent.toArray().includes(0)) return sub(b, 1);
  return where(and(equal(a, 0), equal(b, 0)), b, sub(b, 1));
}

/** `a` to the power `b`; the gradient with respect to `b` is taken where `a` is positive. */
export const pow: Binary = (a, b) => applyPair("Pow", a, b);

/** Max and Min take any number of inputs in ONNX; pare's own functions pass two. Tied inputs share the gradient. */
function defineExtreme(name: "Max" | "Min"): Binary {
  defineOp({
    name,
    arity: [1, Infinity],
    infer: (context) => {
      context.inputs.forEach((_, i) => {
        anyNumber(context.input(i));
      });
      return [broadcastType(context)];
    },
    vjp: ({ cotangents, node, outputs, input }) => {
      const hits = node.inputs.map((_, i) => cast(equal(input(i), outputs[0]!), outputs[0]!.dtype));
      const share = div(cotangents[0]!, hits.reduce(add));
      return hits.map((hit, i) => sumToLike(mul(share, hit), input(i)));
    },
  });
  return (a, b) => applyPair(name, a, b);
}

export const maximum: Binary = defineExtreme("Max");
export const minimum: Binary = defineExtreme("Min");

defineOp({
  name: "Mod",
  attrs: { fmod: "int" },
  arity: [2, 2],
  infer: (context) => {
    anyNumber(context.input(0));
    return [broadcastType(context)];
  },
  vjp: binaryVjp((dy, a, b, y) => [() => dy, () => neg(mul(dy, round(div(sub(a, y), b))))]),
});
/** Remainder of `a / b`; whole numbers follow the divisor's sign, floats the dividend's. */
export function mod(a: TensorLike, b: TensorLike): Tensor {
  const { dtype } = pair(a, b)[0];
  return applyPair("Mod", a, b, isFloat(dtype) ? { fmod: 1 } : {});
}

function defineComparison(name: string, accepts: (t: Tensor) => void = anything): Binary {
  defineOp({
    name,
    arity: [2, 2],
    flat: true,
    infer: (context) => {
      accepts(context.input(0));
      return [{ dtype: "bool", shape: broadcastType(context).shape }];
    },
  });
  return (a, b) => applyPair(name, a, b);
}

export const equal: Binary = defineComparison("Equal");
export const greater: Binary = defineComparison("Greater", anyNumber);
export const greaterEqual: Binary = defineComparison("GreaterOrEqual", anyNumber);
export const less: Binary = defineComparison("Less", anyNumber);
export const lessEqual: Binary = defineComparison("LessOrEqual", anyNumber);
export const and: Binary = defineComparison("And", boolOnly);
export const or: Binary = defineComparison("Or", boolOnly);
export const xor: Binary = defineComparison("Xor", boolOnly);
export const notEqual: Binary = (a, b) => not(equal(a, b));

export const bitwiseAnd: Binary = defineBinary("BitwiseAnd", "flat", { accepts: integersOnly });
export const bitwiseOr: Binary = defineBinary("BitwiseOr", "flat", { accepts: integersOnly });
export const bitwiseXor: Binary = defineBinary("BitwiseXor", "flat", { accepts: integersOnly });
defineBinary("BitShift", "flat", {
  attrs: { direction: "string" },
  accepts: (t) => {
    if (dtypes[t.dtype].kind !== "uint") throw new DTypeError(`it takes unsigned integers, not ${t.dtype}`);
  },
});
export const shiftLeft: Binary = (a, b) => applyPair("BitShift", a, b, { direction: "LEFT" });
export const shiftRight: Binary = (a, b) => applyPair("BitShift", a, b, { direction: "RIGHT" });

// --------------------------------------------------------------------------------------------- three inputs

defineOp({
  name: "Where",
  arity: [3, 3],
  infer: (context) => {
    const [condition, a, b] = [context.input(0), context.input(1), context.input(2)];
    if (condition.dtype !== "bool") throw new DTypeError(`its condition must be bool, not ${condition.dtype}`);
    return [{ dtype: broadcastType(context, 1).dtype, shape: broadcastShape([condition, a, b]) }];
  },
  vjp: ({ cotangents, input, needs }) => {
    const dy = cotangents[0]!;
    return [
      null,
      needs[1] ? sumToLike(where(input(0), dy, 0), input(1)) : null,
      needs[2] ? sumToLike(where(input(0), 0, dy), input(2)) : null,
    ];
  },
});

/** `a` where `condition` holds, `b` elsewhere. */
export function where(condition: TensorLike, a: TensorLike, b: TensorLike): Tensor {
  return within("Where", [condition, a, b], () => {
    const [test, [x, y]] = [asTensor(condition), pair(a, b)];
    // onnxruntime's kernel takes no bool.
    if (x.dtype === "bool" && y.dtype === "bool") return or(and(test, x), and(not(test), y));
    return op("Where", [test, x, y]);
  });
}

defineOp({
  name: "Clip",
  arity: [1, 3],
  infer: ({ input, inputs }) => {
    anyNumber(input(0));
    for (const bound of inputs.slice(1)) {
      if (bound && bound.dtype !== input(0).dtype)
        throw new DTypeError(`its bounds must be ${input(0).dtype}, not ${bound.dtype}`);
      if (bound && bound.rank !== 0)
        throw new ShapeError(`its bounds must be scalars, not ${formatShape(bound.shape)}`);
    }
    return [input(0)];
  },
  vjp: ({ cotangents, input, outputs, needs }) => {
    const [dy, x] = [cotangents[0]!, input(0)];
    const flowing = (passed: Tensor): Tensor => where(passed, dy, 0);
    return [
      flowing(equal(x, outputs[0]!)),
      needs[1] ? sumToLike(flowing(less(x, input(1))), input(1)) : null,
      needs[2] ? sumToLike(flowing(greater(x, input(2))), input(2)) : null,
    ];
  },
});

/** `x` kept within `[low, high]`; null leaves a side open. The gradient passes where nothing was cut. */
export function clip(x: TensorLike, low: number | null, high: number | null): Tensor {
  return within("Clip", [x, low, high], () => {
    const t = asTensor(x);
    return op("Clip", [t, low === null ? null : asTensor(low, t), high === null ? null : asTensor(high, t)]);
  });
}

// --------------------------------------------------------------------------------------------- compositions

export const square: Unary = (x) => {
  const t = asTensor(x);
  return mul(t, t);
};
export const rsqrt: Unary = (x) => reciprocal(sqrt(x));
/** `log(1 + x)` that keeps the digits of small `x`: the error of rounding `1 + x` is divided out again. */
export const log1p: Unary = customVjp(
  (x) => {
    const shifted = add(x, 1);
    return where(equal(shifted, 1), x, mul(log(shifted), div(x, sub(shifted, 1))));
  },
  (dy, _y, x) => [div(dy, add(x, 1))],
);
/** Angle of the point `(x, y)`, in radians from -pi to pi; 0 at the origin. */
export function atan2(y: TensorLike, x: TensorLike): Tensor {
  const [a, b] = pair(y, x);
  // Divide by whichever is larger, so that neither axis blows up, then turn into the right quadrant.
  const steep = greater(abs(a), abs(b));
  const zero = and(equal(a, 0), equal(b, 0));
  const over = where(zero, 1, where(steep, a, b));
  const ratio = div(where(steep, neg(b), a), over);
  const base = atan(ratio);
  const turned = where(
    steep,
    where(greater(a, 0), add(base, Math.PI / 2), sub(base, Math.PI / 2)),
    where(greaterEqual(b, 0), base, where(greaterEqual(a, 0), add(base, Math.PI), sub(base, Math.PI))),
  );
  return where(zero, 0, turned);
}
