import { type DecoderModel, DecoderScorer, type ScoredSequence, type Scorer } from "../../src/evaluate/index.ts";
import type { Tokenizer } from "../../src/formats/index.ts";
import { requireTokenizer } from "../../src/models/index.ts";
import { embeddedModel, openModel } from "../../src/models/node.ts";
import { tinyModel } from "../generate/models.ts";

/** The tokenizer that comes with pare. */
export async function embeddedTokenizer(): Promise<Tokenizer> {
  await using model = await openModel(embeddedModel);
  return requireTokenizer(model);
}

/** A random model over the embedded tokenizer's vocabulary that reads `positions` tokens. */
export function tinyTextModel(tokenizer: Tokenizer, positions = 32): DecoderModel {
  return tinyModel({ vocab_size: tokenizer.vocabSize, max_position_embeddings: positions, num_hidden_layers: 1 });
}

/** A scorer of that model that works in small batches. */
export async function tinyScorer(tokenizer: Tokenizer, batchTokens = 64): Promise<DecoderScorer> {
  return await DecoderScorer.open({ ...tinyTextModel(tokenizer), tokenizer }, { batchTokens, threads: 1 });
}

/** A tokenizer of single characters, of which 0 begins a text. */
export const characters = {
  encode: (text: string) => [...text].map((character) => character.codePointAt(0)!),
  decode: (ids: Iterable<number>) => String.fromCodePoint(...ids),
  bosId: 0,
  eosId: undefined,
};

/** A scorer with log-probabilities given by a function of a sequence and the place of a token in it. */
export function plainScorer(
  logProb: (ids: readonly number[], at: number) => number,
  answer: (prompt: string) => string = () => "",
  maxLength = 8,
): Scorer {
  const scoresOf = ({ ids, scored }: ScoredSequence) => ({
    logProbs: Float32Array.from({ length: scored }, (_, i) => logProb(ids, ids.length - scored + i)),
    greedy: false,
  });
  return {
    tokenizer: characters,
    maxLength,
    score: async (sequences) => sequences.map(scoresOf),
    generate: async (prompt) => ({ text: answer(prompt), truncated: false }),
  };
}
