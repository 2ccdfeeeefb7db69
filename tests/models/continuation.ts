import { expect } from "vitest";
import { type DecoderConfig, decoderLogits, type Weights } from "../../src/models/index.ts";
import { compile } from "../../src/runtime/index.ts";
import { HostTensor, spec } from "../../src/tensor/index.ts";

/** Tokens that each program goes on by. */
export const length = 64;

/** A continuation, with the scores of the whole vocabulary that each of its tokens was chosen by. */
export interface Continuation {
  readonly tokens: readonly number[];
  readonly scores: readonly (readonly number[])[];
}

const largest = (values: readonly number[]): number => values.indexOf(Math.max(...values));

/** The greedy continuation, each token chosen by what `next` gives for all tokens so far. */
export async function greedy(
  prompt: readonly number[],
  next: (tokens: readonly number[], fresh: readonly number[]) => Promise<readonly number[]>,
): Promise<Continuation> {
  const tokens = [...prompt];
  const scores: (readonly number[])[] = [];
  for (let fresh = prompt; scores.length < length; fresh = tokens.slice(-1)) {
    scores.push(await next(tokens, fresh));
    tokens.push(largest(scores.at(-1)!));
  }
  return { tokens: tokens.slice(prompt.length), scores };
}

/** Ours, by logits, each of a pass over the whole text. */
export async function ours(
  { config, weights }: { readonly config: DecoderConfig; readonly weights: Weights },
  prompt: readonly number[],
): Promise<Continuation> {
  await using program = await compile((ids) => decoderLogits(config, weights, ids), [spec("i64", [1, "seq"])], {
    threads: 1,
  });
  return await greedy(prompt, async (tokens) => {
    const logits = await program(HostTensor.from([...tokens], { dtype: "i64", shape: [1, tokens.length] }));
    return Array.from(logits.data.subarray((tokens.length - 1) * config.vocab) as Float32Array);
  });
}

/** The worst difference of any score, relative to their standard deviation at its place. */
function worstDifference(a: Continuation, b: Continuation): number {
  return Math.max(
    ...a.scores.map((row, t) => {
      const mean = row.reduce((sum, x) => sum + x, 0) / row.length;
      const scale = Math.sqrt(row.reduce((sum, x) => sum + (x - mean) ** 2, 0) / row.length);
      return Math.max(...row.map((x, i) => Math.abs(x - b.scores[t]![i]!))) / scale;
    }),
  );
}

/** The same tokens, by scores that differ by less than `tolerance` of their standard deviation. */
export function expectParity(a: Continuation, b: Continuation, tolerance = 1e-4): void {
  expect(a.tokens).toEqual(b.tokens);
  expect(new Set(a.tokens).size, "a loop proves little").toBeGreaterThan(4);
  expect(a.scores.map((row) => row.length)).toEqual(b.scores.map((row) => row.length));
  expect(worstDifference(a, b)).toBeLessThan(tolerance);
}
