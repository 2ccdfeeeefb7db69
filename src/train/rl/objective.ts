import { ArgumentError, cast, clip, exp, less, maximum, mul, neg, sub, type Tensor } from "../../tensor/index.ts";

/** What an objective sees of each token, all `f32 [batch, length]`; what it makes of padding and prompts is ignored. */
export interface TokenSignals {
  /** Log-probability under the policy that is trained. */
  readonly logProbs: Tensor;
  /** Log-probability under the policy that drew the token. */
  readonly behaviour: Tensor;
  readonly advantages: Tensor;
}

/** Loss of each token and what to log beside it, averaged in the same way. */
export interface TokenLoss {
  readonly loss: Tensor;
  readonly metrics?: Readonly<Record<string, Tensor>>;
}

/** Builds the loss that is minimised out of symbolic tensors. */
export type Objective = (signals: TokenSignals) => TokenLoss;

export interface ClipRange {
  /** The ratio may fall to `1 - low` before it stops counting. Default 0.2. */
  readonly low?: number;
  /** The ratio may rise to `1 + high`. Default 0.28, higher than below, so that rare tokens can gain. */
  readonly high?: number;
}

/**
 * `-min(ratio * A, clip(ratio, 1 - low, 1 + high) * A)` of each token, with the ratio of its probabilities under the
 * trained and the behaviour policy (PPO; Schulman et al. 2017), clipped higher above (DAPO; arXiv:2503.14476,
 * equation 10). Logs `clipFraction`, the share of tokens whose ratio was cut off.
 * @throws ArgumentError for a range that is not one
 */
export function clipped({ low = 0.2, high = 0.28 }: ClipRange = {}): Objective {
  if (!(low > 0 && low <= 1)) throw new ArgumentError(`low must be above 0 and at most 1, not ${low}`);
  if (!(high > 0 && high < Infinity)) throw new ArgumentError(`high must be a finite number above 0, not ${high}`);
  return ({ logProbs, behaviour, advantages }) => {
    const ratio = exp(sub(logProbs, behaviour));
    const free = neg(mul(ratio, advantages));
    const held = neg(mul(clip(ratio, 1 - low, 1 + high), advantages));
    return { loss: maximum(free, held), metrics: { clipFraction: cast(less(free, held), "f32") } };
  };
}

/**
 * The k3 estimate of the divergence KL(policy || reference) at each token drawn from the policy:
 * `exp(d) - d - 1` with `d = log reference - log policy` (Schulman 2020, "Approximating KL Divergence").
 */
export function k3(logProbs: Tensor, reference: Tensor): Tensor {
  const difference = sub(reference, logProbs);
  return sub(sub(exp(difference), difference), 1);
}
