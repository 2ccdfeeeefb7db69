import type { LlamaContextSequence, Token } from "node-llama-cpp";

/** Logits up to a constant, as log-probabilities: what both sides of a comparison can be brought to. */
export function logProbabilities(logits: readonly number[]): number[] {
  const top = Math.max(...logits);
  const total = top + Math.log(logits.reduce((sum, x) => sum + Math.exp(x - top), 0));
  return logits.map((x) => x - total);
}

/** llama.cpp's log-probabilities of the token behind `tokens`, over the whole vocabulary; it goes on from its cache. */
export async function theirLogProbabilities(
  sequence: LlamaContextSequence,
  tokens: readonly number[],
): Promise<number[]> {
  const everything = { temperature: 1, topK: 0, topP: 1, minP: 0 };
  const asked = { generateNext: { probabilities: true, options: everything } };
  const inputs = tokens.map((token, i) =>
    i < tokens.length - 1 ? (token as Token) : ([token as Token, asked] as const),
  );
  const results = await sequence.controlledEvaluate(inputs as never);
  const { probabilities } = results.at(-1)!.next as { probabilities: Map<Token, number> };
  return Array.from({ length: probabilities.size }, (_, id) => Math.log(probabilities.get(id as Token)!));
}
