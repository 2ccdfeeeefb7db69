import { ArgumentError } from "../tensor/index.ts";
import { KeyValueCache } from "./cache.ts";
import { ContextError, GenerateError } from "./errors.ts";
import type { DecoderProgram } from "./program.ts";
import { checkTokens } from "./tokens.ts";

/** Tokens that a run takes at most while prompts are read. */
const READ_TOGETHER = 2048;

/** The context of a session: the first `length` rows of the first text of its cache. */
interface Context {
  readonly cache: KeyValueCache;
  readonly length: number;
}

/**
 * Several texts, of whatever lengths, that are decoded together: one run of the program gives each of them its next
 * token's logits. Texts come from the session (`DecoderSession.batch`), which reads prompts, as often as wanted each,
 * and have a cache of their own from then on.
 */
export class DecoderBatch {
  readonly #program: DecoderProgram;
  readonly #source: () => Context;
  readonly #cache: KeyValueCache;
  readonly #lengths: number[] = [];
  #busy = false;

  /** Made by `DecoderSession.batch`. */
  constructor(program: DecoderProgram, source: () => Context) {
    this.#program = program;
    this.#source = source;
    this.#cache = new KeyValueCache(program.config, program.format);
  }

  /** Tokens in the context of each text. */
  get lengths(): readonly number[] {
    return this.#lengths;
  }

  /** Memory of the cached keys and values, in bytes. */
  get cacheBytes(): number {
    return this.#cache.bytes;
  }

  /** Adds a text, behind the others: what the session has read by now. @throws GenerateError while it is reading */
  add(): void {
    this.#checkIdle();
    const { cache, length } = this.#source();
    const text = this.#lengths.length;
    this.#reserve(text + 1, length);
    this.#cache.copy(cache, 0, text, length);
    this.#lengths.push(length);
  }

  /**
   * Adds a text for each of the prompts, behind the others and in their order. Prompts of the same length are read
   * together; nothing of the session is used.
   * @returns logits `[vocab]` behind each prompt
   * @throws ArgumentError for an empty prompt or ids outside of the vocabulary; ContextError for a prompt that is longer
   *   than the model takes; GenerateError while another call is under way
   */
  async read(prompts: readonly (readonly number[])[]): Promise<Float32Array[]> {
    const { vocab, maxPositions } = this.#program.config;
    for (const prompt of prompts) {
      if (prompt.length === 0)
        throw new ArgumentError("a prompt is empty; a model needs at least one token to begin with");
      checkTokens(prompt, vocab);
      if (prompt.length > maxPositions)
        throw new ContextError(`a prompt has ${prompt.length} tokens, but the model takes ${maxPositions}; shorten it`);
    }
    this.#checkIdle();
    const first = this.#lengths.length;
    this.#reserve(first + prompts.length, Math.max(1, ...prompts.map(({ length }) => length)));
    const logits: Float32Array[] = [];
    this.#busy = true;
    try {
      for (const length of new Set(prompts.map((prompt) => prompt.length))) {
        const alike = [...prompts.keys()].filter((i) => prompts[i]!.length === length);
        const together = Math.max(1, Math.floor(READ_TOGETHER / length));
        for (let start = 0; start < alike.length; start += together) {
          const some = alike.slice(start, start + together);
          const cache = new KeyValueCache(this.#program.config, this.#program.format);
          cache.reserve(some.length, length);
          let last: Float32Array[] = [];
          for (let past = 0; past < length; past += READ_TOGETHER) {
            const parts = some.map((i) => prompts[i]!.slice(past, past + READ_TOGETHER));
            last = await this.#program.run(
              cache,
              some.map(() => past),
              parts,
            );
          }
          some.forEach((i, text) => {
            this.#cache.copy(cache, text, first + i, length);
            logits[i] = last[text]!;
          });
        }
      }
      for (const { length } of prompts) this.#lengths.push(length);
      return logits;
    } finally {
      this.#busy = false;
    }
  }

  /** Adds a text, behind the others, that has the same context as one that is there. @throws ArgumentError when there is none */
  repeat(text: number): void {
    this.#checkIdle();
    this.#checkText(text);
    const [count, length] = [this.#lengths.length, this.#lengths[text]!];
    this.#reserve(count + 1, length);
    this.#cache.copy(this.#cache, text, count, length);
    this.#lengths.push(length);
  }

  /** Takes a text out; the last one takes its place. @throws ArgumentError when there is none */
  remove(text: number): void {
    this.#checkIdle();
    this.#checkText(text);
    const last = this.#lengths.length - 1;
    const length = this.#lengths.pop()!;
    if (text === last) return;
    this.#cache.copy(this.#cache, last, text, length);
    this.#lengths[text] = length;
  }

  /**
   * Reads one further token of each text.
   * @returns logits `[vocab]` of the token that follows, by text
   * @throws ArgumentError for another number of tokens than of texts, or ids outside of the vocabulary; ContextError
   *   where a text has as many tokens as the model takes; GenerateError while another call is under way
   */
  async advance(tokens: readonly number[]): Promise<Float32Array[]> {
    const { vocab, maxPositions } = this.#program.config;
    const texts = this.#lengths.length;
    if (texts === 0 || tokens.length !== texts)
      throw new ArgumentError(`the batch has ${texts} texts and cannot read ${tokens.length} tokens`);
    checkTokens(tokens, vocab);
    const full = this.#lengths.findIndex((length) => length >= maxPositions);
    if (full >= 0)
      throw new ContextError(`the model takes ${maxPositions} tokens, and text ${full} has as many; remove it`);
    this.#checkIdle();
    this.#reserve(texts, Math.max(...this.#lengths) + 1);
    this.#busy = true;
    try {
      const logits = await this.#program.run(
        this.#cache,
        this.#lengths,
        tokens.map((token) => [token]),
      );
      for (let i = 0; i < texts; i++) this.#lengths[i]!++;
      return logits;
    } finally {
      this.#busy = false;
    }
  }

  #checkText(text: number): void {
    const count = this.#lengths.length;
    if (!Number.isInteger(text) || text < 0 || text >= count)
      throw new ArgumentError(`the batch has ${count} texts and none with the number ${text}`);
  }

  #checkIdle(): void {
    if (this.#busy) throw new GenerateError("the batch is still reading tokens; await that first");
  }

  /** Makes room, with an eighth to spare: programs read all rows of a batch that there is room for. */
  #reserve(texts: number, rows: number): void {
    if (texts > this.#cache.texts) this.#cache.reserve(Math.max(texts, 2 * this.#cache.texts), rows);
    if (rows > this.#cache.capacity)
      this.#cache.reserve(texts, Math.min(this.#program.config.maxPositions, 32 * Math.ceil((rows * 9) / 8 / 32)));
  }
}
