import { broadcastShapes, formatShape, sameShape } from "../dims.ts";
import { isFloat } from "../dtype.ts";
import { ArgumentError, DTypeError, ShapeError } from "../errors.ts";
import { customVjp } from "../grad.ts";
import { type AttrKind, type Attrs, asTensor, defineOp, op, type Tensor, type TensorLike } from "../tensor.ts";
import {
  abs,
  add,
  and,
  cast,
  clip,
  div,
  erf,
  exp,
  greater,
  less,
  minimum,
  mul,
  neg,
  relu,
  sigmoid,
  square,
  sub,
  where,
} from "./elementwise.ts";
import { sumToLike } from "./fill.ts";

/** An activation function by its formulas: its value at `x`, and its slope there, which may use the value `y`. */
interface Formula<A extends Attrs> {
  value(x: Tensor, attrs: A): Tensor;
  /** Absent: the value's formula is differentiated. */
  slope?(x: Tensor, y: Tensor, attrs: A): Tensor;
}

/** Defines an activation whose attributes have these defaults, and gives the function that takes them by name. */
function defineActivation<A extends { [key: string]: number | string }>(
  name: string,
  defaults: A,
  { value, slope }: Formula<A>,
): (x: TensorLike, attrs?: Partial<A>) => Tensor {
  const kinds = Object.entries(defaults).map(([key, v]): [string, AttrKind] => [
    key,
    typeof v === "string" ? "string" : "float",
  ]);
  const complete = (attrs: Attrs): A => ({ ...defaults, ...(attrs as Partial<A>) });
  defineOp({
    name,
    attrs: Object.fromEntries(kinds),
    arity: [1, 1],
    infer: ({ input, attrs }) => {
      if (!isFloat(input(0).dtype)) throw new DTypeError(`it takes floating-point numbers, not ${input(0).dtype}`);
      const { approximate } = attrs;
      if (approximate !== undefined && approximate !== "none" && approximate !== "tanh")
        throw new ArgumentError(`its approximation is "none" or "tanh", not "${String(approximate)}"`);
      return [input(0)];
    },
    expand: ([x], attrs) => [value(x!, complete(attrs))],
    ...(slope && {
      vjp: ({ cotangents, input, outputs, attrs }) => [
        mul(cotangents[0]!, slope(input(0), outputs[0]!, complete(attrs))),
      ],
    }),
  });
  return (input, attrs = {}) => {
    const x = asTensor(input);
    // onnxruntime's CPU has these kernels in single precision only.
    return x.dtype === "f64" ? value(x, complete(attrs as A)) : op(name, [x], attrs as Attrs);
  };
}

/** 1 where the condition holds, else 0: multiplying by it is faster than `where` with scalars. */
const indicator = (condition: Tensor, like: Tensor): Tensor => cast(condition, like.dtype);

// --------------------------------------------------------------------------------------------- smooth gates

/** sqrt(2 / pi) and the cubic coefficient of the tanh approximation (Hendrycks and Gimpel 2016, section 2). */
const [scale, cubic] = [Math.sqrt(2 / Math.PI), 0.044715];

const geluOp = defineActivation(
  "Gelu",
  { approximate: "none" as "none" | "tanh" },
  {
    // 1/2 (1 + tanh u) is sigmoid(2u), whose kernel saves three passes.
    value: (x, { approximate }) =>
      approximate === "tanh"
        ? mul(x, sigmoid(mul(x, add(mul(square(x), 2 * scale * cubic), 2 * scale))))
        : mul(mul(x, 0.5), add(erf(mul(x, Math.SQRT1_2)), 1)),
    slope: (x, y, { approximate }) => {
      if (approximate === "tanh") {
        const x2 = square(x);
        const gate = sigmoid(mul(x, add(mul(x2, 2 * scale * cubic), 2 * scale)));
        return add(gate, mul(mul(y, sub(1, gate)), add(mul(x2, 6 * scale * cubic), 2 * scale)));
      }
      const u = mul(x, Math.SQRT1_2);
      const density = mul(mul(u, exp(neg(square(u)))), 1 / Math.sqrt(Math.PI));
      return add(add(mul(erf(u), 0.5), 0.5), density);
    },
  },
);

/** Gaussian error linear unit `x P(X <= x)`, exactly or by its tanh approximation (Hendrycks and Gimpel 2016). */
export function gelu(x: TensorLike, { approximate = "none" }: { approximate?: "none" | "tanh" } = {}): Tensor {
  return geluOp(x, { approximate });
}

const quickGeluOp = defineActivation(
  "com.microsoft.QuickGelu",
  { alpha: 1.702 },
  {
    // onnxruntime fuses the product into its kernel, which it lacks in double precision.
    value: (x, { alpha }) => (x.dtype === "f64" ? div(x, add(exp(mul(x, -alpha)), 1)) : mul(x, sigmoid(mul(x, alpha)))),
    slope: (x, y, { alpha }) => {
      const gate = sigmoid(mul(x, alpha));
      return add(gate, mul(mul(y, alpha), sub(1, gate)));
    },
  },
);

/** `x sigmoid(alpha x)`, with the factor that makes it close to `gelu`. */
export function quickGelu(x: TensorLike, alpha = 1.702): Tensor {
  return quickGeluOp(x, { alpha });
}

/**
 * Sigmoid linear unit `x sigmoid(x)`, also called swish. One onnxruntime kernel: as fast as a sigmoid and a product,
 * in training too, but without the gate kept until the backward pass.
 */
export function silu(x: TensorLike): Tensor {
  return quickGeluOp(x, { alpha: 1 });
}

/**
 * `x tanh(softplus(x))` (Misra 2019) as a ratio of polynomials in `exp(x)`, from which it no longer differs in `f32`
 * above 20; onnxruntime's own kernel is four times slower.
 */
export function mish(input: TensorLike): Tensor {
  const x = asTensor(input);
  const e = exp(clip(x, null, 20));
  const n = mul(e, add(e, 2));
  return mul(x, div(n, add(n, 2)));
}
defineActivation("Mish", {}, { value: mish });

/** `x / (1 + |x|)`. */
export const softsign: (x: TensorLike) => Tensor = defineActivation(
  "Softsign",
  {},
  {
    value: (x) => div(x, add(abs(x), 1)),
    slope: (_x, y) => square(sub(1, abs(y))),
  },
);

// -------------------------------------------------------------------------------------------- rectified units

/** Squared rectifier `max(x, 0)^2` (So et al. 2021, "Primer"). */
export const relu2: (x: TensorLike) => Tensor = customVjp(
  (x: Tensor) => square(relu(x)),
  (dy, _y, x) => [mul(dy, mul(relu(x), 2))],
);

const leakyReluOp = defineActivation(
  "LeakyRelu",
  { alpha: 0.01 },
  {
    value: (x, { alpha }) => where(greater(x, 0), x, mul(x, alpha)),
    slope: (x, _y, { alpha }) => add(mul(indicator(greater(x, 0), x), 1 - alpha), alpha),
  },
);
/** `x` where positive, `alpha x` elsewhere. */
export function leakyRelu(x: TensorLike, alpha = 0.01): Tensor {
  return leakyReluOp(x, { alpha });
}

const eluOp = defineActivation(
  "Elu",
  { alpha: 1 },
  {
    value: (x, { alpha }) => where(greater(x, 0), x, mul(sub(exp(minimum(x, 0)), 1), alpha)),
    slope: (x, y, { alpha }) => where(greater(x, 0), 1, add(y, alpha)),
  },
);
/** `x` where positive, `alpha (exp(x) - 1)` elsewhere (Clevert et al. 2015). */
export function elu(x: TensorLike, alpha = 1): Tensor {
  return eluOp(x, { alpha });
}

/** `gamma` times `elu(x, alpha)` with the constants that keep mean 0 and variance 1 (Klambauer et al. 2017). */
export const selu: (x: TensorLike) => Tensor = defineActivation(
  "Selu",
  { alpha: 1.6732632423543772, gamma: 1.0507009873554805 },
  {
    value: (x, { alpha, gamma }) => mul(where(greater(x, 0), x, mul(sub(exp(minimum(x, 0)), 1), alpha)), gamma),
    slope: (x, y, { alpha, gamma }) => where(greater(x, 0), gamma, add(y, alpha * gamma)),
  },
);

const celuOp = defineActivation(
  "Celu",
  { alpha: 1 },
  {
    value: (x, { alpha }) => add(relu(x), mul(sub(exp(mul(minimum(x, 0), 1 / alpha)), 1), alpha)),
    slope: (_x, y, { alpha }) => add(mul(minimum(y, 0), 1 / alpha), 1),
  },
);
/** `x` where positive, `alpha (exp(x / alpha) - 1)` elsewhere: smooth for every `alpha` (Barron 2017). */
export function celu(x: TensorLike, alpha = 1): Tensor {
  const t = asTensor(x);
  // ONNX knows it in single precision only.
  return t.dtype === "f16" ? cast(celuOp(cast(t, "f32"), { alpha }), "f16") : celuOp(t, { alpha });
}

const thresholdedReluOp = defineActivation(
  "ThresholdedRelu",
  { alpha: 1 },
  {
    value: (x, { alpha }) => where(greater(x, alpha), x, 0),
    slope: (x, _y, { alpha }) => indicator(greater(x, alpha), x),
  },
);
/** `x` where it exceeds `alpha`, 0 elsewhere. */
export function thresholdedRelu(x: TensorLike, alpha = 1): Tensor {
  return thresholdedReluOp(x, { alpha });
}

const hardSigmoidOp = defineActivation(
  "HardSigmoid",
  { alpha: 0.2, beta: 0.5 },
  {
    value: (x, { alpha, beta }) => clip(add(mul(x, alpha), beta), 0, 1),
    slope: (_x, y, { alpha }) => mul(indicator(and(greater(y, 0), less(y, 1)), y), alpha),
  },
);
/** `alpha x + beta` kept within 0 and 1; the defaults are those of MobileNetV3, not of ONNX. */
export function hardSigmoid(x: TensorLike, alpha = 1 / 6, beta = 0.5): Tensor {
  return hardSigmoidOp(x, { alpha, beta });
}

/** `x` times `hardSigmoid(x)` (Howard et al. 2019, "Searching for MobileNetV3"). */
export const hardSwish: (x: TensorLike) => Tensor = defineActivation(
  "HardSwish",
  {},
  {
    value: (x) => mul(x, clip(add(mul(x, 1 / 6), 0.5), 0, 1)),
    slope: (x) => add(clip(add(mul(x, 1 / 6), 0.5), 0, 1), mul(mul(x, 1 / 6), indicator(less(abs(x), 3), x))),
  },
);

const bent = (x: Tensor, slope: Tensor): Tensor => where(less(x, 0), mul(x, slope), x);

defineOp({
  name: "PRelu",
  arity: [2, 2],
  infer: ({ input }) => {
    const [x, slope] = [input(0), input(1)];
    if (!isFloat(x.dtype) || slope.dtype !== x.dtype)
      throw new DTypeError(`it takes floating-point numbers of one type, not ${x.dtype} and ${slope.dtype}`);
    if (!sameShape(broadcastShapes(x.shape, slope.shape) ?? [], x.shape))
      throw new ShapeError(`slopes ${formatShape(slope.shape)} do not broadcast to ${formatShape(x.shape)}`);
    return [x];
  },
  expand: ([x, slope]) => [bent(x!, slope!)],
  vjp: ({ cotangents, input, needs }) => {
    const [dy, x, slope] = [cotangents[0]!, input(0), input(1)];
    return [
      needs[0] ? mul(dy, where(less(x, 0), slope, 1)) : null,
      needs[1] ? sumToLike(mul(dy, minimum(x, 0)), slope) : null,
    ];
  },
});

/** `x` where positive, `slope x` elsewhere; `slope` broadcasts to `x` and is learned (He et al. 2015). */
export function prelu(x: TensorLike, slope: TensorLike): Tensor {
  const t = asTensor(x);
  const bend = asTensor(slope, t);
  return t.dtype === "f64" ? bent(t, bend) : op("PRelu", [t, bend]);
}
