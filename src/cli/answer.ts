import { type GenerateOptions, type Generation, generate } from "../generate/index.ts";
import type { TextModel } from "./model.ts";

/** A generated text with how long it took. */
export interface Answer extends Generation {
  /** Includes reading the prompt; null where no token came. */
  readonly secondsToFirstToken: number | null;
  /** Of the tokens behind the first; null where there are none. */
  readonly tokensPerSecond: number | null;
}

/** Generates a text and hands its pieces out as they come. @throws as `generate` */
export async function answer(
  model: TextModel,
  prompt: string | readonly number[],
  options: GenerateOptions,
  write: (text: string) => void,
): Promise<Answer> {
  const start = performance.now();
  let first: number | undefined;
  const pieces = generate(model.session, model.tokenizer, prompt, { eosIds: model.eosIds, ...options });
  for (;;) {
    const { done, value } = await pieces.next();
    if (done) {
      const later = value.tokens.length - 1;
      return {
        ...value,
        secondsToFirstToken: first === undefined ? null : (first - start) / 1000,
        tokensPerSecond: first === undefined || later === 0 ? null : (1000 * later) / (performance.now() - first),
      };
    }
    first ??= performance.now();
    write(value.text);
  }
}

/** An answer's figures for people. */
export function figures({ tokens, tokensPerSecond, secondsToFirstToken }: Answer, seed: number): string {
  const count = `${tokens.length} ${tokens.length === 1 ? "token" : "tokens"}`;
  const speed = tokensPerSecond === null ? "" : `, ${tokensPerSecond.toFixed(1)} tokens/s`;
  const first = secondsToFirstToken === null ? "" : `, first after ${secondsToFirstToken.toFixed(2)} s`;
  return `[${count}${speed}${first}, seed ${seed}]`;
}

/** A model's text as a terminal may have it: one must not obey the control characters in it. */
export function harmless(text: string): string {
  return text.replace(/(?![\n\t])\p{Cc}/gu, "\uFFFD");
}
