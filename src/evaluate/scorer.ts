import type { Tokenizer } from "../formats/index.ts";

/** A sequence of tokens whose last ones are scored, each given all before it in the sequence. */
export interface ScoredSequence {
  readonly ids: readonly number[];
  /** How many of the last tokens to score; fewer than there are, because the first has nothing before it. */
  readonly scored: number;
}

export interface TokenScores {
  /** Natural logarithm of the probability of each scored token. */
  readonly logProbs: Float32Array;
  /** Whether every scored token is the most likely one at its place. */
  readonly greedy: boolean;
}

export interface ContinueOptions {
  readonly maxTokens: number;
  /** Strings that end the text; they are not part of it. */
  readonly stop: readonly string[];
  /** 0 always takes the best token. */
  readonly temperature: number;
  readonly seed: number;
  readonly signal?: AbortSignal | undefined;
}

export interface Continuation {
  readonly text: string;
  /** Whether the prompt was too long and lost its beginning. */
  readonly truncated: boolean;
}

/** What an evaluation needs of a tokenizer. */
export type ScoringTokenizer = Pick<Tokenizer, "encode" | "decode" | "bosId" | "eosId">;

/** What an evaluation needs of a model. */
export interface Scorer {
  readonly tokenizer: ScoringTokenizer;
  /** Tokens that the model reads at once at most; a sequence may have one more, which is only predicted. */
  readonly maxLength: number;
  /** Scores sequences, in the order given. */
  score(sequences: readonly ScoredSequence[]): Promise<TokenScores[]>;
  /** Continues a prompt. */
  generate(prompt: string, options: ContinueOptions): Promise<Continuation>;
}

/** The token put before a text that is scored from its first token on: what begins a text, else what ends one. */
export function prefixToken({ bosId, eosId }: ScoringTokenizer): number | undefined {
  return bosId ?? eosId;
}

/** The ids of a text that something follows: with what the tokenizer puts before a text, without what it puts behind. */
export function encodePrompt(tokenizer: ScoringTokenizer, text: string): number[] {
  const { bosId } = tokenizer;
  const ids = tokenizer.encode(text, { addSpecialTokens: false });
  return bosId !== undefined && tokenizer.encode("")[0] === bosId ? [bosId, ...ids] : ids;
}
