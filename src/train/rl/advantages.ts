import { ArgumentError } from "../../tensor/index.ts";
import type { Completion } from "./rollouts.ts";

/** The completions of one prompt with what they earned. */
export interface Group<P> {
  readonly prompt: P;
  readonly completions: readonly Completion[];
  readonly rewards: readonly number[];
}

/**
 * How much better each completion of a group is than expected: one number for all of its tokens, or one for each token.
 * Null where the group teaches nothing and is to be skipped.
 */
export type AdvantageRule<P> = (group: Group<P>) => readonly (number | readonly number[])[] | null;

export interface GroupRelativeOptions {
  /** Added to the standard deviation. Default 1e-6. */
  readonly epsilon?: number;
  /** Whether to divide by the standard deviation at all; without it groups of medium difficulty weigh most (Liu et al. 2025). Default true. */
  readonly normalize?: boolean;
}

/**
 * `(r - mean) / (std + epsilon)` over the rewards of a group (GRPO; Shao et al. 2024, arXiv:2402.03300), with the
 * population's standard deviation. A group whose rewards are all equal is skipped.
 */
export function groupRelative({ epsilon = 1e-6, normalize = true }: GroupRelativeOptions = {}): AdvantageRule<unknown> {
  if (!(epsilon >= 0 && epsilon < Infinity))
    throw new ArgumentError(`epsilon must be a finite number from 0, not ${epsilon}`);
  return ({ rewards }) => {
    const mean = rewards.reduce((a, b) => a + b, 0) / rewards.length;
    const variance = rewards.reduce((sum, r) => sum + (r - mean) ** 2, 0) / rewards.length;
    if (rewards.every((r) => r === rewards[0])) return null;
    const scale = normalize ? Math.sqrt(variance) + epsilon : 1;
    return rewards.map((r) => (r - mean) / scale);
  };
}

/** What a token of each completion counts in the loss; `all` is how many completions were drawn, skipped ones included. */
export type TokenWeights = (lengths: readonly number[], all: number) => readonly number[];

/** Every token of the completions that are kept counts the same (DAPO; Yu et al. 2025, arXiv:2503.14476, equation 12). */
export const tokenMean: TokenWeights = (lengths) => {
  const total = lengths.reduce((a, b) => a + b, 0);
  return lengths.map(() => 1 / total);
};

/** Every completion that was drawn counts the same, its tokens evenly (GRPO). */
export const completionMean: TokenWeights = (lengths, all) => lengths.map((length) => 1 / (length * all));
