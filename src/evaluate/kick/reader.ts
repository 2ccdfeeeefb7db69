import type { ChatMessage, Tokenizer } from "../../formats/index.ts";
import { completeBatch, DecoderSession } from "../../generate/index.ts";
import type { DeviceOptions } from "../../runtime/index.ts";
import { type DecoderModel, DecoderScorer, type DecoderScorerOptions } from "../decoder-scorer.ts";
import { logLikelihoods } from "../likelihood.ts";
import { encodePrompt, type Scorer, type ScoringTokenizer } from "../scorer.ts";

export interface AnswerOptions {
  /** Tokens of an answer at most; one number for all, or one for each prompt. */
  readonly maxTokens: number | readonly number[];
  readonly stop?: readonly string[];
  /** 0, the default, always takes the best token. */
  readonly temperature?: number;
  readonly seed?: number;
  readonly signal?: AbortSignal | undefined;
}

/** A generated text. */
export interface Answer {
  readonly text: string;
  /** Its tokens. */
  readonly ids: readonly number[];
}

/** What the tasks ask of a model. */
export interface Reader {
  readonly tokenizer: ScoringTokenizer;
  /** Tokens that the model reads and writes together at most. */
  readonly maxLength: number;
  /** Continues each prompt, a text or tokens. A prompt must leave room for its answer. */
  answer(prompts: readonly (string | readonly number[])[], options: AnswerOptions): Promise<Answer[]>;
  /** Tokens of a conversation that the model is to go on with. */
  chat(messages: readonly ChatMessage[]): readonly number[];
  /** Log-probabilities, up to a constant for each prompt, of the given continuations: one list for each prompt. */
  weigh(prompts: readonly string[], continuations: readonly string[]): Promise<number[][]>;
}

/** A decoder as the tasks see it. Answers of many prompts are decoded together. */
export class DecoderReader implements Reader {
  readonly tokenizer: Tokenizer;
  readonly maxLength: number;
  /** For perplexity. */
  readonly scorer: Scorer & AsyncDisposable;
  readonly #session: DecoderSession;

  private constructor(
    model: DecoderModel & { readonly tokenizer: Tokenizer },
    scorer: DecoderScorer,
    session: DecoderSession,
  ) {
    this.tokenizer = model.tokenizer;
    this.maxLength = model.config.maxPositions;
    this.scorer = scorer;
    this.#session = session;
  }

  /** Compiles the model. @throws as `DecoderScorer.open` */
  static async open(
    model: DecoderModel & { readonly tokenizer: Tokenizer },
    options: DecoderScorerOptions & DeviceOptions = {},
  ): Promise<DecoderReader> {
    const { batchTokens: _, ...device } = options;
    const scorer = await DecoderScorer.open(model, options);
    return new DecoderReader(model, scorer, await DecoderSession.open(model.config, model.weights, device));
  }

  async answer(
    prompts: readonly (string | readonly number[])[],
    { maxTokens, stop = [], temperature = 0, seed = 0, signal }: AnswerOptions,
  ): Promise<Answer[]> {
    const requests = prompts.map((prompt, i) => {
      const limit = typeof maxTokens === "number" ? maxTokens : maxTokens[i]!;
      const ids = typeof prompt === "string" ? encodePrompt(this.tokenizer, prompt) : prompt;
      const room = Math.max(1, this.maxLength - ids.length);
      return {
        prompt: ids,
        maxTokens: Math.min(limit, room),
        stop,
        temperature,
        seed: seed + i,
        ...(signal && { signal }),
      };
    });
    const generations = await completeBatch(this.#session, this.tokenizer, requests);
    return generations.map(([first]) => ({ text: first!.text, ids: first!.tokens }));
  }

  /** By the tokenizer's chat template; without one, as lines of a user and an assistant. */
  chat(messages: readonly ChatMessage[]): readonly number[] {
    if (this.tokenizer.chatTemplate) return this.tokenizer.encodeChat(messages, { addGenerationPrompt: true });
    const lines = messages.map(({ role, content }) => `${role.toUpperCase()}: ${String(content)}\n`);
    return encodePrompt(this.tokenizer, `${lines.join("")}ASSISTANT:`);
  }

  async weigh(prompts: readonly string[], continuations: readonly string[]): Promise<number[][]> {
    const requests = prompts.flatMap((context) => continuations.map((continuation) => ({ context, continuation })));
    const found = await logLikelihoods(this.scorer, requests);
    return prompts.map((_, i) => continuations.map((_, k) => found[i * continuations.length + k]!.logLikelihood));
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.scorer[Symbol.asyncDispose]();
    await this.#session.dispose();
  }
}
