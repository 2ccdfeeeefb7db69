import type { Tokenizer } from "../formats/index.ts";
import type { DecoderConfig, Weights } from "../models/index.ts";

/** A language model with text that it was trained on, and text that it has never seen. */
export interface LanguageModel {
  readonly name: string;
  readonly config: DecoderConfig;
  readonly weights: Weights;
  readonly tokenizer: Tokenizer;
  /** Tokens of text like that of its training, to calibrate on. */
  readonly training: readonly number[];
  readonly heldOut: readonly number[];
}

/** What experiments work on. Where it comes from is the platform's business. */
export interface Workbench {
  /** The model that comes with pare. */
  languageModel(): Promise<LanguageModel>;
}
