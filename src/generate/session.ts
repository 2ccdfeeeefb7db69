import type { DecoderConfig, Weights } from "../models/index.ts";
import type { Device, DeviceOptions } from "../runtime/index.ts";
import { ArgumentError, type HostTensor } from "../tensor/index.ts";
import { DecoderBatch } from "./batch.ts";
import { type CacheFormat, KeyValueCache } from "./cache.ts";
import { ContextError, GenerateError } from "./errors.ts";
import { DecoderProgram } from "./program.ts";
import { checkTokens, commonStart, slid } from "./tokens.ts";

export interface DecoderSessionOptions extends DeviceOptions {
  /** Tokens that one run of the program takes at most; longer inputs are worked off in chunks. Default 256. */
  readonly chunk?: number;
  /**
   * How keys and values are kept. `int8` takes little more than a quarter of the memory and some more time for each
   * token; what it rounds away changes logits slightly, and a little differently with the places where a text was cut
   * into chunks, since a chunk reads its own keys as they are. Default `f32`.
   */
  readonly cache?: CacheFormat;
  /**
   * Tensors of the weights that `replace` may change, by path (`model.layers.0.mlp.up_proj.weight.values`). They become
   * inputs of the program, which costs some speed. Default none.
   */
  readonly replaceable?: (path: string) => boolean;
}

export interface AdvanceOptions {
  /** Ends the work between two chunks. */
  readonly signal?: AbortSignal | undefined;
  /**
   * What becomes of a context that is longer than the model takes. `refuse` throws. `slide` keeps its first 4 tokens,
   * which attention leans on whatever they are (Xiao et al. 2024), and the newest of the rest, half of what the model
   * takes; these are read again at their new positions. Default `refuse`.
   */
  readonly overflow?: "refuse" | "slide";
}

/**
 * A decoder with the context that it has read. A run reads views of the cache of keys and values and returns the new
 * rows only, so that the cache as a whole is never copied.
 */
export class DecoderSession {
  readonly config: DecoderConfig;
  readonly #program: DecoderProgram;
  readonly #chunk: number;
  readonly #cache: KeyValueCache;
  #ids: readonly number[] = [];
  /** Behind the last token, where it has been read last. */
  #logits: Float32Array | undefined;
  #busy = false;

  private constructor(program: DecoderProgram, chunk: number) {
    this.config = program.config;
    this.#program = program;
    this.#chunk = chunk;
    this.#cache = new KeyValueCache(program.config, program.format);
  }

  /**
   * Compiles one program for reading prompts and for decoding. The weights become constants of it, but for the
   * replaceable ones.
   * @throws ModelError when weights and configuration do not fit; DeviceError when the device is missing
   */
  static async open(
    config: DecoderConfig,
    weights: Weights,
    { chunk = 256, cache = "f32", replaceable, ...device }: DecoderSessionOptions = {},
  ): Promise<DecoderSession> {
    if (!Number.isInteger(chunk) || chunk < 1)
      throw new ArgumentError(`chunk must be a whole number from 1, not ${chunk}`);
    if (cache !== "f32" && cache !== "int8")
      throw new ArgumentError(`cache must be "f32" or "int8", not ${JSON.stringify(cache)}`);
    return new DecoderSession(await DecoderProgram.compile(config, weights, cache, device, replaceable), chunk);
  }

  /**
   * Goes on with other values of some weights, as training makes them, without compiling anything. The values are read
   * where they lie, in every run from now on. The context is forgotten; batches begun before are of no more use.
   * @throws ArgumentError for a tensor that was not declared replaceable, or of another type or shape
   */
  replace(values: Readonly<Record<string, HostTensor>>): void {
    this.#checkIdle();
    this.#program.replace(values);
    this.#ids = [];
    this.#logits = undefined;
  }

  /** The device that it really runs on. */
  get device(): Device {
    return this.#program.device;
  }

  /** Tokens in the context. */
  get length(): number {
    return this.#ids.length;
  }

  /** The tokens in the context. */
  get ids(): readonly number[] {
    return this.#ids;
  }

  /** Memory of the cached keys and values, in bytes. */
  get cacheBytes(): number {
    return this.#cache.bytes;
  }

  /**
   * Reads further tokens. When it fails or is aborted, the context stays as it was, unless it had to slide.
   * @returns logits `[vocab]` of the token that follows the last
   * @throws ContextError when they are more than the model has positions left; ArgumentError for ids outside of the
   *   vocabulary; GenerateError while another call is under way; the signal's reason when aborted
   */
  async advance(ids: readonly number[], { signal, overflow = "refuse" }: AdvanceOptions = {}): Promise<Float32Array> {
    this.#checkIds(ids);
    this.#checkIdle();
    const { maxPositions } = this.config;
    if (this.length + ids.length > maxPositions) {
      if (overflow === "slide") return this.read([...this.#ids, ...ids], { signal, overflow });
      throw new ContextError(
        `the model takes ${maxPositions} tokens; ${this.length} in its context and ${ids.length} more are too many`,
      );
    }
    this.#busy = true;
    try {
      let logits = new Float32Array();
      let past = this.length;
      for (let at = 0; at < ids.length; at += this.#chunk) {
        signal?.throwIfAborted();
        const part = ids.slice(at, at + this.#chunk);
        this.#reserve(past + part.length);
        [logits] = (await this.#program.run(this.#cache, [past], [part])) as [Float32Array<ArrayBuffer>];
        past += part.length;
      }
      this.#ids = [...this.#ids, ...ids];
      this.#logits = logits;
      return logits;
    } finally {
      this.#busy = false;
    }
  }

  /**
   * Makes `ids` the context. What the present one begins with alike is not read again, so that the next turn of a
   * conversation or another continuation of the same prompt costs its new tokens only. When it fails or is aborted,
   * this common beginning is what stays.
   * @returns logits `[vocab]` of the token that follows the last
   * @throws as `advance`
   */
  async read(ids: readonly number[], { signal, overflow = "refuse" }: AdvanceOptions = {}): Promise<Float32Array> {
    this.#checkIds(ids);
    this.#checkIdle();
    const { maxPositions } = this.config;
    if (ids.length > maxPositions && overflow === "refuse")
      throw new ContextError(`the model takes ${maxPositions} tokens; ${ids.length} are too many`);
    const wanted = slid(ids, maxPositions);
    const shared = commonStart(this.#ids, wanted);
    if (shared === wanted.length && shared === this.length && this.#logits) return this.#logits.slice();
    // The last token is read in any case, for what it says of the next.
    this.truncate(Math.min(shared, wanted.length - 1));
    return this.advance(wanted.slice(this.length), { signal });
  }

  /** Forgets all but the first `length` tokens. @throws ArgumentError when there are not so many */
  truncate(length: number): void {
    this.#checkIdle();
    if (!Number.isInteger(length) || length < 0 || length > this.length)
      throw new ArgumentError(`a context of ${this.length} tokens cannot be cut to ${length}`);
    if (length === this.length) return;
    this.#logits = undefined;
    this.#ids = this.#ids.slice(0, length);
  }

  /** An empty batch of texts that start from contexts of this session and run on its program. */
  batch(): DecoderBatch {
    return new DecoderBatch(this.#program, () => {
      this.#checkIdle();
      return { cache: this.#cache, length: this.length };
    });
  }

  /** Frees the program. Reading further tokens afterwards is an error. */
  dispose(): Promise<void> {
    return this.#program.dispose();
  }

  [Symbol.asyncDispose](): Promise<void> {
    return this.dispose();
  }

  #checkIds(ids: readonly number[]): void {
    if (ids.length === 0) throw new ArgumentError("there is no token to read");
    checkTokens(ids, this.config.vocab);
  }

  #checkIdle(): void {
    if (this.#busy)
      throw new GenerateError("the session is still reading tokens; await that first, or open a session for each text");
  }

  /** Makes room for `count` rows, by doubling. */
  #reserve(count: number): void {
    const { capacity } = this.#cache;
    if (count > capacity) this.#cache.reserve(1, Math.min(Math.max(count, 2 * capacity, 64), this.config.maxPositions));
  }
}
