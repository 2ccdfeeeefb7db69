import {
  abs,
  add,
  asTensor,
  cast,
  customVjp,
  div,
  equal,
  exp,
  formatShape,
  lessEqual,
  logSoftmax,
  mean,
  mul,
  neg,
  notEqual,
  reshape,
  ShapeError,
  scatterAdd,
  softplus,
  square,
  sub,
  sum,
  type Tensor,
  type TensorLike,
  takeAlongAxis,
  unsqueeze,
  where,
} from "../tensor/index.ts";

export interface CrossEntropyOptions {
  /** Positions with this target count neither in the sum nor in the mean. */
  readonly ignore?: number;
  /** Probability mass moved from the target to all classes evenly. */
  readonly labelSmoothing?: number;
  /** Weight of each position, shaped like the targets; the mean divides by the sum of weights. */
  readonly weights?: TensorLike;
}

/**
 * Log-probability of each target: `logits [..., classes]`, `targets [...]` (whole numbers) to `[...]`. The gradient is
 * written out as softmax minus one-hot, which spares the passes of a naive chain over the largest tensor of a
 * language model.
 */
export function targetLogProbs(logits: Tensor, targets: Tensor): Tensor {
  if (logits.rank !== targets.rank + 1) {
    throw new ShapeError(
      `targets ${formatShape(targets.shape)} need one axis less than logits ${formatShape(logits.shape)}`,
    );
  }
  const at = unsqueeze(targets, -1);
  return customVjp(
    (x) => reshape(takeAlongAxis(logSoftmax(x, -1), at, -1), targets.shape, [targets]),
    (dy, _y, x) => {
      const g = unsqueeze(dy, -1);
      const spread = mul(exp(logSoftmax(x, -1)), neg(g));
      return [scatterAdd(spread, at, g, -1)];
    },
  )(logits);
}

/**
 * Mean cross-entropy in nats: `logits [..., classes]` against whole-number `targets [...]`.
 * @throws ShapeError when the shapes do not belong together.
 */
export function crossEntropy(
  logits: Tensor,
  targets: Tensor,
  { ignore, labelSmoothing = 0, weights }: CrossEntropyOptions = {},
): Tensor {
  const kept = ignore === undefined ? undefined : cast(notEqual(targets, ignore), logits.dtype);
  const safe = ignore === undefined ? targets : where(equal(targets, ignore), 0, targets);
  let loss = neg(targetLogProbs(logits, safe));
  if (labelSmoothing > 0) {
    const even = neg(mean(logSoftmax(logits, -1), { axes: -1 }));
    loss = add(mul(loss, 1 - labelSmoothing), mul(even, labelSmoothing));
  }
  const factors = [kept, weights === undefined ? undefined : asTensor(weights)].filter(
    (f): f is Tensor => f !== undefined,
  );
  if (factors.length === 0) return mean(loss);
  const weight = factors.reduce((a, b) => mul(a, b));
  return div(sum(mul(loss, weight)), sum(weight));
}

/** Mean squared error. */
export function meanSquaredError(prediction: TensorLike, target: TensorLike): Tensor {
  return mean(square(sub(prediction, target)));
}

/** Mean of a squared error below `delta` that goes on linearly above it (Huber 1964). */
export function huber(prediction: TensorLike, target: TensorLike, delta = 1): Tensor {
  const error = abs(sub(prediction, target));
  return mean(where(lessEqual(error, delta), mul(square(error), 0.5), mul(sub(error, delta / 2), delta)));
}

/** Mean binary cross-entropy of `logits` against `targets` between 0 and 1, without overflow. */
export function binaryCrossEntropy(logits: TensorLike, targets: TensorLike): Tensor {
  return mean(sub(softplus(logits), mul(logits, targets)));
}

/**
 * Mean Kullback-Leibler divergence KL(teacher || student) in nats over the last axis of logits, both divided by
 * `temperature`; times its square, as usual in distillation (Hinton et al. 2015).
 * @param weights of each position, shaped like the logits without the last axis; the mean divides by their sum
 */
export function distillation(
  student: Tensor,
  teacher: Tensor,
  temperature = 1,
  { weights }: { readonly weights?: TensorLike } = {},
): Tensor {
  const teacherLog = logSoftmax(div(teacher, temperature), -1);
  const studentLog = logSoftmax(div(student, temperature), -1);
  const divergence = sum(mul(exp(teacherLog), sub(teacherLog, studentLog)), { axes: -1 });
  const average = weights === undefined ? mean(divergence) : div(sum(mul(divergence, weights)), sum(asTensor(weights)));
  return mul(average, temperature ** 2);
}
