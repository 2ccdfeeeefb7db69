import {
  ArgumentError,
  type Attrs,
  cast,
  div,
  equal,
  gather,
  logSoftmax,
  mul,
  neg,
  squeeze,
  sum,
  type Tensor,
  takeAlongAxis,
  unsqueeze,
  where,
} from "../../tensor/index.ts";

/**
 * Negative log-likelihood of `target [batch, ...]` under `scores [batch, classes, ...]`, with a weight per class if
 * given; targets equal to `ignore_index` count nothing.
 */
export function nllLoss(scores: Tensor, target: Tensor, weight: Tensor | null | undefined, attrs: Attrs): Tensor {
  const ignored = attrs.ignore_index === undefined ? undefined : equal(target, attrs.ignore_index as number);
  const index = ignored ? where(ignored, 0, target) : target;
  const picked = neg(squeeze(takeAlongAxis(scores, unsqueeze(index, 1), 1), 1));
  const each = weight ? gather(weight, index) : undefined;
  const counted = ignored ? where(ignored, 0, each ?? cast(equal(index, index), scores.dtype)) : each;
  const losses = counted ? mul(picked, counted) : picked;
  const reduction = attrs.reduction ?? "mean";
  if (reduction === "none") return losses;
  if (reduction === "sum") return sum(losses);
  if (reduction !== "mean") throw new ArgumentError(`it has no reduction "${String(reduction)}"`);
  return div(sum(losses), sum(counted ?? cast(equal(index, index), scores.dtype)));
}

/** Cross entropy of the softmax over axis 1, and the logarithm of that softmax. */
export function softmaxCrossEntropy(
  scores: Tensor,
  target: Tensor,
  weight: Tensor | null | undefined,
  attrs: Attrs,
): [loss: Tensor, logProbabilities: Tensor] {
  const logProbabilities = logSoftmax(scores, 1);
  return [nllLoss(logProbabilities, target, weight, attrs), logProbabilities];
}
