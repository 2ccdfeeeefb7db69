import type { Tokenizer } from "../formats/index.ts";
import { complete, DecoderSession } from "../generate/index.ts";
import { checkWeights, type DecoderConfig, decode, headLogits, type Weights } from "../models/index.ts";
import { targetLogProbs } from "../nn/index.ts";
import { compile, type DeviceOptions } from "../runtime/index.ts";
import { ArgumentError, argMax, equal, flatten, gather, type HostTensor, type Tensor } from "../tensor/index.ts";
import { type BatchInputs, batchesOf, batchSpecs } from "./batches.ts";
import {
  type Continuation,
  type ContinueOptions,
  encodePrompt,
  type ScoredSequence,
  type Scorer,
  type TokenScores,
} from "./scorer.ts";

/** A decoder as it is evaluated. */
export interface DecoderModel {
  readonly config: DecoderConfig;
  readonly weights: Weights;
}

export interface DecoderScorerOptions extends DeviceOptions {
  /** Tokens of one run, padding included, unless a single sequence has more. Default 2048. */
  readonly batchTokens?: number;
}

/** The head's logits `[n, vocab]` at `rows [n]` of the flattened `ids [batch, seq]`. */
export function logitsAt({ config, weights }: DecoderModel, { ids, rows }: BatchInputs<Tensor>): Tensor {
  return headLogits(config, weights, gather(flatten(decode(config, weights, ids).hidden, 0, 1), rows, 0));
}

interface Scores<T> {
  /** `f32 [n]` */
  readonly logProbs: T;
  /** `bool [n]`: whether the target is the most likely token. */
  readonly best: T;
}

interface Program {
  (inputs: BatchInputs<HostTensor>): Promise<Scores<HostTensor>>;
  dispose(): Promise<void>;
}

/** Scores and continues texts by a decoder. Its programs return a number per scored token, never the logits. */
export class DecoderScorer implements Scorer {
  readonly tokenizer: Tokenizer;
  readonly #model: DecoderModel;
  readonly #program: Program;
  readonly #device: DeviceOptions;
  readonly #batchTokens: number;
  /** Opened by the first text that is generated. */
  #session: Promise<DecoderSession> | undefined;

  private constructor(
    model: DecoderModel & { readonly tokenizer: Tokenizer },
    program: Program,
    batchTokens: number,
    device: DeviceOptions,
  ) {
    this.#model = model;
    this.tokenizer = model.tokenizer;
    this.#program = program;
    this.#batchTokens = batchTokens;
    this.#device = device;
  }

  /**
   * Compiles the scoring program.
   * @throws ModelError when weights and configuration do not fit; DeviceError when the device is missing
   */
  static async open(
    model: DecoderModel & { readonly tokenizer: Tokenizer },
    { batchTokens = 2048, ...device }: DecoderScorerOptions = {},
  ): Promise<DecoderScorer> {
    if (!Number.isInteger(batchTokens) || batchTokens < 1)
      throw new ArgumentError(`batchTokens must be a whole number from 1, not ${batchTokens}`);
    checkWeights(model.config, model.weights);
    const scores = (inputs: BatchInputs<Tensor>): Scores<Tensor> => {
      const logits = logitsAt(model, inputs);
      return { logProbs: targetLogProbs(logits, inputs.targets), best: equal(argMax(logits, -1), inputs.targets) };
    };
    const program = await compile(scores, [batchSpecs], { ...device, names: ["in"] });
    return new DecoderScorer(model, program, batchTokens, device);
  }

  get maxLength(): number {
    return this.#model.config.maxPositions;
  }

  async score(sequences: readonly ScoredSequence[]): Promise<TokenScores[]> {
    const results = sequences.map((): TokenScores => ({ logProbs: new Float32Array(), greedy: true }));
    const limits = { vocab: this.#model.config.vocab, maxLength: this.maxLength, batchTokens: this.#batchTokens };
    for (const { indices, inputs, counts } of batchesOf(sequences, limits)) {
      const { logProbs, best } = await this.#program(inputs);
      let at = 0;
      indices.forEach((index, i) => {
        const end = at + counts[i]!;
        results[index] = {
          logProbs: (logProbs.data as Float32Array).slice(at, end),
          greedy: (best.data as Uint8Array).subarray(at, end).every((value) => value === 1),
        };
        at = end;
      });
    }
    return results;
  }

  /** A prompt that leaves too little room loses its beginning; at most half of the context is kept free for the answer. */
  async generate(
    prompt: string,
    { maxTokens, stop, temperature, seed, signal }: ContinueOptions,
  ): Promise<Continuation> {
    const { config, weights } = this.#model;
    this.#session ??= DecoderSession.open(config, weights, this.#device);
    const ids = encodePrompt(this.tokenizer, prompt);
    const room = config.maxPositions - Math.min(maxTokens, Math.floor(config.maxPositions / 2));
    const { text } = await complete(await this.#session, this.tokenizer, ids.slice(-room), {
      maxTokens,
      stop,
      temperature,
      seed,
      ...(signal && { signal }),
    });
    return { text, truncated: ids.length > room };
  }

  /** Frees the programs. */
  async dispose(): Promise<void> {
    await this.#program.dispose();
    await (await this.#session)?.dispose();
  }

  [Symbol.asyncDispose](): Promise<void> {
    return this.dispose();
  }
}
