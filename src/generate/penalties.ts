/** What has been seen so far, for penalties. */
export interface Seen {
  /** Every token of the prompt and of the answer. */
  readonly tokens: ReadonlySet<number>;
  /** How often each token of the answer occurred in it. */
  readonly counts: ReadonlyMap<number, number>;
}

/** Strengths of the penalties. */
export interface Penalties {
  /** Above 1 makes seen tokens less likely; 1 changes nothing. */
  readonly repetition: number;
  /** Above 0 makes tokens less likely with each occurrence; 0 changes nothing. */
  readonly frequency: number;
  /** Above 0 makes tokens that occurred less likely, however often; 0 changes nothing. Default 0. */
  readonly presence?: number;
}

/**
 * A copy of `logits [vocab]` with penalties: those of seen tokens divided by `repetition` where positive and multiplied
 * by it where negative (Keskar et al. 2019, section 4.1), then those of the answer lowered by `frequency` for each
 * occurrence and by `presence` once.
 */
export function penalized(
  logits: Float32Array,
  { tokens, counts }: Seen,
  { repetition, frequency, presence = 0 }: Penalties,
): Float32Array {
  const result = logits.slice();
  for (const token of tokens) {
    const logit = result[token]!;
    result[token] = logit > 0 ? logit / repetition : logit * repetition;
  }
  for (const [token, count] of counts) result[token]! -= frequency * count + presence;
  return result;
}
