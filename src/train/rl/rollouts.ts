import {
  best,
  candidatesOf,
  DecoderSession,
  type DecoderSessionOptions,
  drawn,
  logProbability,
  softmax,
  tempered,
} from "../../generate/index.ts";
import type { DecoderConfig, Weights } from "../../models/index.ts";
import { ArgumentError, type HostTensor, Rng } from "../../tensor/index.ts";

/** What is continued: the tokens, beside whatever a verifier needs to judge what comes of them. */
export interface Prompt {
  readonly ids: readonly number[];
}

/** What a policy made of a prompt. */
export interface Completion {
  /** At least one; the stop token, where one came, is the last. */
  readonly tokens: readonly number[];
  /** Natural logarithm of the probability with which each was drawn, at the temperature that it was drawn at. */
  readonly logProbs: readonly number[];
  /** Whether a stop token came; else the length was used up. */
  readonly ended: boolean;
}

export interface SampleOptions {
  /** Completions of each prompt. Default 1. */
  readonly samples?: number;
  /** Tokens of a completion at most. */
  readonly maxTokens: number;
  /** Tokens that end a completion. */
  readonly stop: readonly number[];
  /** Logits are divided by this; 0 takes the best token. Default 1. */
  readonly temperature?: number;
  /** Same seed, same completions, in whatever company each is drawn. Default 0. */
  readonly seed?: number;
  readonly signal?: AbortSignal | undefined;
}

/** Draws completions with weights that change from step to step. */
export interface Rollouts<P extends Prompt = Prompt> {
  /** Goes on with these values of trained parameters, by path. */
  load(values: Readonly<Record<string, HostTensor>>): void;
  /** `samples` completions of each prompt. @throws the signal's reason when aborted */
  sample(prompts: readonly P[], options: SampleOptions): Promise<Completion[][]>;
  dispose(): Promise<void>;
}

export interface DecoderRolloutOptions extends DecoderSessionOptions {
  /** Completions that are drawn together at most, which bounds the memory of keys and values. Default 256. */
  readonly texts?: number;
}

/** One completion in the making. */
class Draft {
  readonly prompt: number;
  readonly sample: number;
  readonly tokens: number[] = [];
  readonly logProbs: number[] = [];
  ended = false;
  readonly #rng: Rng;

  constructor(prompt: number, sample: number, rng: Rng) {
    this.prompt = prompt;
    this.sample = sample;
    this.#rng = rng.fork(`${prompt} ${sample}`);
  }

  /** Draws the next token. @returns whether another is to follow */
  next(logits: Float32Array, { temperature = 1, stop, maxTokens }: SampleOptions): boolean {
    const candidates = candidatesOf(logits);
    let token: number;
    if (temperature === 0) {
      token = best(candidates);
      this.logProbs.push(logProbability(logits, token));
    } else {
      const { tokens, scores } = tempered(candidates, temperature);
      const probabilities = softmax(scores);
      token = drawn(tokens, probabilities, this.#rng.uniform());
      this.logProbs.push(Math.log(probabilities[tokens.indexOf(token)]!));
    }
    this.tokens.push(token);
    this.ended = stop.includes(token);
    return !this.ended && this.tokens.length < maxTokens;
  }
}

/** Completions of a decoder, drawn in batches over a cache of keys and values. */
export class DecoderRollouts implements Rollouts {
  readonly #session: DecoderSession;
  readonly #texts: number;

  private constructor(session: DecoderSession, texts: number) {
    this.#session = session;
    this.#texts = texts;
  }

  /** @throws as `DecoderSession.open`; ArgumentError for a number of texts that is none */
  static async open(
    config: DecoderConfig,
    weights: Weights,
    { texts = 256, ...options }: DecoderRolloutOptions = {},
  ): Promise<DecoderRollouts> {
    if (!Number.isInteger(texts) || texts < 1)
      throw new ArgumentError(`texts must be a whole number from 1, not ${texts}`);
    return new DecoderRollouts(await DecoderSession.open(config, weights, options), texts);
  }

  load(values: Readonly<Record<string, HostTensor>>): void {
    this.#session.replace(values);
  }

  /** @throws ArgumentError for options out of range, or a prompt that leaves too little room for its completion */
  async sample(prompts: readonly Prompt[], options: SampleOptions): Promise<Completion[][]> {
    const { samples = 1, seed = 0 } = options;
    this.#check(prompts, options);
    const rng = new Rng(seed);
    const drafts = prompts.map((_, prompt) => Array.from({ length: samples }, (_, i) => new Draft(prompt, i, rng)));
    const together = Math.max(1, Math.floor(this.#texts / samples));
    for (let start = 0; start < prompts.length; start += together)
      await this.#draw(prompts.slice(start, start + together), drafts.slice(start, start + together), options);
    return drafts.map((group) => group.map(({ tokens, logProbs, ended }) => ({ tokens, logProbs, ended })));
  }

  async #draw(prompts: readonly Prompt[], groups: readonly Draft[][], options: SampleOptions): Promise<void> {
    const batch = this.#session.batch();
    options.signal?.throwIfAborted();
    const first = await batch.read(prompts.map(({ ids }) => ids));
    // Drafts in the order of the batch's texts: the first of each group stands where its prompt was read.
    const running = groups.map((group) => group[0]!);
    groups.forEach((group, text) => {
      for (const draft of group.slice(1)) {
        batch.repeat(text);
        running.push(draft);
      }
    });
    const step = (logitsOf: (draft: Draft, text: number) => Float32Array): void => {
      const going = running.map((draft, text) => draft.next(logitsOf(draft, text), options));
      for (let text = running.length - 1; text >= 0; text--) {
        if (going[text]) continue;
        batch.remove(text);
        running[text] = running.at(-1)!;
        running.pop();
      }
    };
    const start = groups[0]![0]!.prompt;
    step(({ prompt }) => first[prompt - start]!);
    while (running.length > 0) {
      options.signal?.throwIfAborted();
      const logits = await batch.advance(running.map(({ tokens }) => tokens.at(-1)!));
      step((_, text) => logits[text]!);
    }
  }

  #check(prompts: readonly Prompt[], { samples = 1, maxTokens, temperature = 1 }: SampleOptions): void {
    if (!Number.isInteger(samples) || samples < 1)
      throw new ArgumentError(`samples must be a whole number from 1, not ${samples}`);
    if (!Number.isInteger(maxTokens) || maxTokens < 1)
      throw new ArgumentError(`maxTokens must be a whole number from 1, not ${maxTokens}`);
    if (!(temperature >= 0 && temperature < Infinity))
      throw new ArgumentError(`temperature must be a number from 0, not ${temperature}`);
    const { maxPositions } = this.#session.config;
    const long = prompts.find(({ ids }) => ids.length + maxTokens - 1 > maxPositions);
    if (long)
      throw new ArgumentError(
        `a prompt of ${long.ids.length} tokens with a completion of ${maxTokens} is longer than the ${maxPositions} tokens that the model takes; shorten one of them`,
      );
  }

  dispose(): Promise<void> {
    return this.#session.dispose();
  }

  [Symbol.asyncDispose](): Promise<void> {
    return this.dispose();
  }
}
