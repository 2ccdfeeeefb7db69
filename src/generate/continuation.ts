import type { Tokenizer } from "../formats/index.ts";
import type { DecoderConfig } from "../models/index.ts";
import { ArgumentError } from "../tensor/index.ts";
import { logProbability } from "./candidates.ts";
import { ContextError } from "./errors.ts";
import { type TokenLogprob, topLogprobs } from "./logprobs.ts";
import { Sampler, type SamplingOptions } from "./sampler.ts";
import { StopFinder } from "./stop.ts";

export interface GenerateOptions extends SamplingOptions {
  /**
   * Tokens to generate at most; default as many as the context has room for, or, where it slides, as many as the model
   * takes.
   */
  readonly maxTokens?: number;
  /** Strings that end the text; they are not part of it. */
  readonly stop?: readonly string[];
  /** Tokens that end the text; default the one that the tokenizer names. */
  readonly eosIds?: readonly number[];
  /** Whether to give the log-probability of each token. */
  readonly logprobs?: boolean;
  /** How many of the most probable tokens to give with each, with their log-probabilities. Default none. */
  readonly topLogprobs?: number;
  /** Whether a context that becomes longer than the model takes ends the text or slides; see `AdvanceOptions`. */
  readonly overflow?: "refuse" | "slide";
  /** Ends the generation early; what has been given stands. */
  readonly signal?: AbortSignal;
}

export interface GeneratedToken {
  readonly token: number;
  /** Text that is certain with this token: empty while a character or what may be a stop string is incomplete. */
  readonly text: string;
  /** Natural logarithm of the probability that the model itself, before any option, gave the token. */
  readonly logprob?: number;
  /** The tokens that the model itself thought most probable, best first. */
  readonly topLogprobs?: readonly TokenLogprob[];
}

export interface Generation {
  /** The pieces' texts put together. */
  readonly text: string;
  /** All tokens, the one that ended the text included. */
  readonly tokens: readonly number[];
  /** Log-probability of each token, where asked for. */
  readonly logprobs?: readonly number[];
  /** `stop`: a stop string or an end token came; `length`: `maxTokens` or the context is used up; `abort`: the signal. */
  readonly finishReason: "stop" | "length" | "abort";
  readonly usage: { readonly promptTokens: number; readonly generatedTokens: number };
}

/** What generation needs of a tokenizer. */
export type GenerationTokenizer = Pick<Tokenizer, "encode" | "decodeStream" | "eosId">;

/** One text in the making: it takes the logits behind what there is and draws, decodes and judges the next token. */
export class Continuation {
  readonly options: GenerateOptions;
  readonly #prompt: readonly number[];
  readonly #limit: number;
  readonly #sampler: Sampler;
  readonly #finder: StopFinder;
  readonly #stream: ReturnType<GenerationTokenizer["decodeStream"]>;
  readonly #ends: ReadonlySet<number>;
  readonly #tokens: number[] = [];
  readonly #logprobs: number[] = [];
  #text = "";
  #finishReason: Generation["finishReason"] | undefined;

  /** @throws ArgumentError for an option outside of its range or an empty prompt; ContextError for too long a prompt */
  constructor(
    { vocab, maxPositions }: DecoderConfig,
    tokenizer: GenerationTokenizer,
    prompt: string | readonly number[],
    options: GenerateOptions,
  ) {
    const { maxTokens = Number.POSITIVE_INFINITY, stop = [], topLogprobs: top = 0, overflow = "refuse" } = options;
    if (maxTokens !== Number.POSITIVE_INFINITY && !(Number.isInteger(maxTokens) && maxTokens >= 1))
      throw new ArgumentError(`maxTokens must be a whole number from 1, not ${maxTokens}`);
    if (!Number.isInteger(top) || top < 0)
      throw new ArgumentError(`topLogprobs must be a whole number from 0, not ${top}`);
    if (overflow !== "refuse" && overflow !== "slide")
      throw new ArgumentError(`overflow must be "refuse" or "slide", not ${JSON.stringify(overflow)}`);
    const ids = typeof prompt === "string" ? tokenizer.encode(prompt) : [...prompt];
    if (ids.length === 0)
      throw new ArgumentError("the prompt is empty; a model needs at least one token to begin with");
    const slides = overflow === "slide";
    if (ids.length > maxPositions && !slides)
      throw new ContextError(`the prompt has ${ids.length} tokens, but the model takes ${maxPositions}; shorten it`);
    this.options = options;
    this.#prompt = ids;
    // The last token is drawn behind the last position and needs none itself.
    const room = maxPositions - ids.length + 1;
    this.#limit = slides ? (options.maxTokens ?? maxPositions) : Math.min(maxTokens, room);
    this.#sampler = new Sampler(vocab, options, ids);
    this.#finder = new StopFinder(stop);
    this.#ends = new Set(options.eosIds ?? (tokenizer.eosId === undefined ? [] : [tokenizer.eosId]));
    this.#stream = tokenizer.decodeStream({ skipSpecialTokens: true });
    // Spaces and characters may depend on the token before.
    for (const id of ids) this.#stream.push(id);
  }

  /** Prompt and answer as far as it has come. */
  get ids(): readonly number[] {
    return [...this.#prompt, ...this.#tokens];
  }

  /** The last token. */
  get last(): number {
    return this.#tokens.at(-1) ?? this.#prompt.at(-1)!;
  }

  /** Whether no token is to follow. */
  get ended(): boolean {
    return this.#finishReason !== undefined;
  }

  get aborted(): boolean {
    return this.options.signal?.aborted === true;
  }

  /** Draws the next token. @param logits `[vocab]`, behind all that there is */
  next(logits: Float32Array): GeneratedToken {
    const { logprobs = false, topLogprobs: top = 0 } = this.options;
    const token = this.#sampler.next(logits);
    this.#tokens.push(token);
    const isEnd = this.#ends.has(token);
    let { text, stopped } = this.#finder.push(isEnd ? "" : this.#stream.push(token));
    const last = isEnd || stopped || this.#tokens.length === this.#limit;
    if (last && !stopped) {
      const tail = this.#finder.push(this.#stream.end());
      text += tail.text + this.#finder.end();
      stopped = tail.stopped;
    }
    this.#text += text;
    if (last) this.#finishReason = isEnd || stopped ? "stop" : "length";
    if (logprobs) this.#logprobs.push(logProbability(logits, token));
    return {
      token,
      text,
      ...(logprobs && { logprob: this.#logprobs.at(-1)! }),
      ...(top > 0 && { topLogprobs: topLogprobs(logits, top) }),
    };
  }

  /** What has become of it; before its end, that it was broken off. */
  result(): Generation {
    return {
      text: this.#text,
      tokens: this.#tokens,
      ...(this.options.logprobs && { logprobs: this.#logprobs }),
      finishReason: this.#finishReason ?? "abort",
      usage: { promptTokens: this.#prompt.length, generatedTokens: this.#tokens.length },
    };
  }
}
