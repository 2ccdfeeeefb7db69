import { ArgumentError, Rng } from "../tensor/index.ts";
import { best, candidatesOf, drawn, minP, softmax, tempered, topK, topP, typical } from "./candidates.ts";
import { penalized } from "./penalties.ts";

/**
 * How the next token is drawn. Penalties and the temperature change scores; then top-k, top-p, min-p and typical narrow
 * the candidates down, in this order, each looking at the probabilities among those that are left.
 */
export interface SamplingOptions {
  /** Scores are divided by this; 0 always takes the best token. Default 1. */
  readonly temperature?: number;
  /** Only this many best tokens. */
  readonly topK?: number;
  /** Only the fewest best tokens whose probabilities sum to this: above 0, at most 1. */
  readonly topP?: number;
  /** Only tokens at least this times as likely as the best: 0 to 1. */
  readonly minP?: number;
  /** Only the most typical tokens whose probabilities sum to this: above 0, at most 1. */
  readonly typical?: number;
  /** Above 1: tokens of prompt and answer become less likely. */
  readonly repetitionPenalty?: number;
  /** Taken off a token's score for each time that it occurs in the answer. */
  readonly frequencyPenalty?: number;
  /** Taken off the score of each token that occurs in the answer. */
  readonly presencePenalty?: number;
  /** The only tokens that may come. */
  readonly allowed?: Iterable<number>;
  /** Same seed, same tokens. Default 0. */
  readonly seed?: number;
}

/** Draws one token after the other. */
export class Sampler {
  readonly #vocab: number;
  readonly #options: Required<Omit<SamplingOptions, "allowed" | "seed">>;
  readonly #allowed: Uint32Array | undefined;
  readonly #rng: Rng;
  readonly #seen = new Set<number>();
  readonly #counts = new Map<number, number>();

  /**
   * @param vocab length of the logits
   * @param prompt tokens before the first that is drawn, for the repetition penalty
   * @throws ArgumentError for an option outside of its range
   */
  constructor(vocab: number, options: SamplingOptions = {}, prompt: Iterable<number> = []) {
    const { allowed, seed = 0 } = options;
    this.#vocab = vocab;
    this.#options = {
      temperature: ranged("temperature", options.temperature ?? 1, "a number from 0", (x) => x >= 0),
      topK: ranged("topK", options.topK ?? vocab, "a whole number from 1", (x) => Number.isInteger(x) && x >= 1),
      topP: ranged("topP", options.topP ?? 1, "above 0 and at most 1", (x) => x > 0 && x <= 1),
      minP: ranged("minP", options.minP ?? 0, "from 0 to 1", (x) => x >= 0 && x <= 1),
      typical: ranged("typical", options.typical ?? 1, "above 0 and at most 1", (x) => x > 0 && x <= 1),
      repetitionPenalty: ranged("repetitionPenalty", options.repetitionPenalty ?? 1, "a number above 0", (x) => x > 0),
      frequencyPenalty: ranged("frequencyPenalty", options.frequencyPenalty ?? 0, "a number", () => true),
      presencePenalty: ranged("presencePenalty", options.presencePenalty ?? 0, "a number", () => true),
    };
    this.#allowed = allowed && Uint32Array.from(allowedTokens(allowed, vocab));
    this.#rng = new Rng(seed);
    for (const token of prompt) this.#seen.add(token);
  }

  /**
   * The token that follows, given `logits [vocab]`, which are left as they are.
   * @throws GenerateError when they allow none
   */
  next(logits: Float32Array): number {
    if (logits.length !== this.#vocab)
      throw new ArgumentError(`the sampler was made for ${this.#vocab} logits, but got ${logits.length}`);
    const token = this.#draw(logits);
    this.#seen.add(token);
    this.#counts.set(token, (this.#counts.get(token) ?? 0) + 1);
    return token;
  }

  #draw(logits: Float32Array): number {
    const { temperature, ...limits } = this.#options;
    const { repetitionPenalty: repetition, frequencyPenalty: frequency, presencePenalty: presence } = limits;
    const scores =
      repetition === 1 && frequency === 0 && presence === 0
        ? logits
        : penalized(logits, { tokens: this.#seen, counts: this.#counts }, { repetition, frequency, presence });
    let candidates = candidatesOf(scores, this.#allowed);
    if (temperature === 0) return best(candidates);
    candidates = tempered(candidates, temperature);
    candidates = topK(candidates, limits.topK);
    candidates = topP(candidates, limits.topP);
    candidates = minP(candidates, limits.minP);
    candidates = typical(candidates, limits.typical);
    return drawn(candidates.tokens, softmax(candidates.scores), this.#rng.uniform());
  }
}

function ranged(name: string, value: number, wanted: string, holds: (value: number) => boolean): number {
  if (!(Number.isFinite(value) && holds(value))) throw new ArgumentError(`${name} must be ${wanted}, not ${value}`);
  return value;
}

function allowedTokens(tokens: Iterable<number>, vocab: number): number[] {
  const sorted = [...new Set(tokens)].sort((a, b) => a - b);
  if (sorted.length === 0) throw new ArgumentError("allowed must name at least one token");
  const wrong = sorted.find((token) => !(Number.isInteger(token) && token >= 0 && token < vocab));
  if (wrong !== undefined)
    throw new ArgumentError(`allowed must hold ids from 0 to ${vocab - 1}, but it holds ${wrong}`);
  return sorted;
}
