import { checkWeights, type DecoderConfig, decode, headLogits, type Weights } from "../models/index.ts";
import { compile, type Device, type DeviceOptions } from "../runtime/index.ts";
import { ArgumentError, gather, HostTensor, ints, spec, type Tensor, type TensorSpec } from "../tensor/index.ts";
import { ContextError, GenerateError } from "./errors.ts";

export interface DecoderSessionOptions extends DeviceOptions {
  /** Tokens that one run of the program takes at most; longer inputs are worked off in chunks. Default 256. */
  readonly chunk?: number;
}

export interface AdvanceOptions {
  /** Ends the work between two chunks; the session then stays as it was. */
  readonly signal?: AbortSignal | undefined;
}

/** Keys and values of one layer, `[1, rows, kvHeads * headDim]`. */
interface Rows<T> {
  readonly keys: T;
  readonly values: T;
}

/** What one run takes: `n` new tokens behind `past` cached ones. */
interface StepInputs<T> {
  /** `i64 [1, n]` */
  readonly ids: T;
  /** `i64 [1, n]` */
  readonly positions: T;
  /** `f32 [n, past + n]`, added to attention scores. */
  readonly mask: T;
  /** The same for layers with a window. */
  readonly windowMask?: T;
  readonly layers: readonly Rows<T>[];
}

interface StepOutputs<T> {
  /** `f32 [1, 1, vocab]`, of the last token. */
  readonly logits: T;
  readonly rows: readonly Rows<T>[];
}

/** A compiled step. */
interface Step {
  (inputs: StepInputs<HostTensor>): Promise<StepOutputs<HostTensor>>;
  readonly device: Device;
  dispose(): Promise<void>;
}

/** As `causalMask` hides keys. */
const HIDDEN = -1e30;

/**
 * A decoder with the context that it has read. The cache of keys and values lies in arrays that grow: a run reads views
 * of their first rows and returns the new rows only, so that the cache as a whole is never copied.
 */
export class DecoderSession {
  readonly config: DecoderConfig;
  readonly #step: Step;
  readonly #chunk: number;
  readonly #windowSize: number | null;
  /** Of each layer, with room for `#capacity` rows. */
  #cache: readonly Rows<Float32Array>[];
  #capacity = 0;
  #length = 0;
  #busy = false;

  private constructor(config: DecoderConfig, step: Step, chunk: number) {
    this.config = config;
    this.#step = step;
    this.#chunk = chunk;
    this.#windowSize = windowOf(config);
    this.#cache = Array.from({ length: config.layers }, () => ({
      keys: new Float32Array(),
      values: new Float32Array(),
    }));
  }

  /**
   * Compiles one program for reading prompts and for decoding. The weights become constants of it.
   * @throws ModelError when weights and configuration do not fit; DeviceError when the device is missing
   */
  static async open(
    config: DecoderConfig,
    weights: Weights,
    { chunk = 256, ...device }: DecoderSessionOptions = {},
  ): Promise<DecoderSession> {
    if (!Number.isInteger(chunk) || chunk < 1)
      throw new ArgumentError(`chunk must be a whole number from 1, not ${chunk}`);
    checkWeights(config, weights);
    const step = (inputs: StepInputs<Tensor>): StepOutputs<Tensor> => {
      const { hidden, rows } = decode(config, weights, inputs.ids, inputs);
      const last = gather(hidden, ints([-1]), 1);
      return { logits: headLogits(config, weights, last), rows };
    };
    const program = await compile(step, [stepSpecs(config)], { ...device, names: ["in"] });
    return new DecoderSession(config, program, chunk);
  }

  /** The device that it really runs on. */
  get device(): Device {
    return this.#step.device;
  }

  /** Tokens in the context. */
  get length(): number {
    return this.#length;
  }

  /**
   * Reads further tokens. When it fails or is aborted, the context stays as it was.
   * @returns logits `[vocab]` of the token that follows the last
   * @throws ContextError when they are more than the model has positions left; ArgumentError for ids outside of the
   *   vocabulary; GenerateError while another call is under way; the signal's reason when aborted
   */
  async advance(ids: readonly number[], { signal }: AdvanceOptions = {}): Promise<Float32Array> {
    this.#checkIds(ids);
    this.#checkIdle();
    this.#busy = true;
    try {
      let logits: Float32Array = new Float32Array();
      let past = this.#length;
      for (let at = 0; at < ids.length; at += this.#chunk) {
        signal?.throwIfAborted();
        const part = ids.slice(at, at + this.#chunk);
        logits = await this.#run(part, past);
        past += part.length;
      }
      this.#length = past;
      return logits;
    } finally {
      this.#busy = false;
    }
  }

  /** Forgets all but the first `length` tokens. @throws ArgumentError when there are not so many */
  truncate(length: number): void {
    this.#checkIdle();
    if (!Number.isInteger(length) || length < 0 || length > this.#length)
      throw new ArgumentError(`a context of ${this.#length} tokens cannot be cut to ${length}`);
    this.#length = length;
  }

  /** Frees the program. Reading further tokens afterwards is an error. */
  dispose(): Promise<void> {
    return this.#step.dispose();
  }

  [Symbol.asyncDispose](): Promise<void> {
    return this.dispose();
  }

  #checkIds(ids: readonly number[]): void {
    const { vocab, maxPositions } = this.config;
    if (ids.length === 0) throw new ArgumentError("there is no token to read");
    const wrong = ids.find((id) => !(Number.isInteger(id) && id >= 0 && id < vocab));
    if (wrong !== undefined)
      throw new ArgumentError(`a token's id is a whole number from 0 to ${vocab - 1}, not ${wrong}`);
    if (this.#length + ids.length > maxPositions)
      throw new ContextError(
        `the model takes ${maxPositions} tokens; ${this.#length} in its context and ${ids.length} more are too many`,
      );
  }

  #checkIdle(): void {
    if (this.#busy)
      throw new GenerateError("the session is still reading tokens; await that first, or open a session for each text");
  }

  /** Reads `ids` behind the first `past` rows of the cache and adds theirs. @returns logits of the last */
  async #run(ids: readonly number[], past: number): Promise<Float32Array> {
    const [count, total, width] = [ids.length, past + ids.length, widthOf(this.config)];
    this.#reserve(total);
    const view = (rows: Float32Array): HostTensor =>
      new HostTensor("f32", [1, past, width], rows.subarray(0, past * width));
    const { logits, rows } = await this.#step({
      ids: row(ids),
      positions: row(ids.map((_, i) => past + i)),
      mask: maskOf(past, count, Number.POSITIVE_INFINITY),
      ...(this.#windowSize !== null && { windowMask: maskOf(past, count, this.#windowSize) }),
      layers: this.#cache.map(({ keys, values }) => ({ keys: view(keys), values: view(values) })),
    });
    this.#cache.forEach(({ keys, values }, layer) => {
      keys.set(rows[layer]!.keys.data as Float32Array, past * width);
      values.set(rows[layer]!.values.data as Float32Array, past * width);
    });
    return logits.data as Float32Array;
  }

  /** Makes room for `count` rows, by doubling. */
  #reserve(count: number): void {
    if (count <= this.#capacity) return;
    this.#capacity = Math.min(Math.max(count, 2 * this.#capacity, 64), this.config.maxPositions);
    const size = this.#capacity * widthOf(this.config);
    const grown = (rows: Float32Array): Float32Array => {
      const larger = new Float32Array(size);
      larger.set(rows);
      return larger;
    };
    this.#cache = this.#cache.map(({ keys, values }) => ({ keys: grown(keys), values: grown(values) }));
  }
}

const widthOf = ({ kvHeads, headDim }: DecoderConfig): number => kvHeads * headDim;

/** The size of the window, which all layers that have one share. */
const windowOf = ({ window }: DecoderConfig): number | null => window.find((size) => size !== null) ?? null;

function stepSpecs(config: DecoderConfig): StepInputs<TensorSpec> {
  const [tokens, mask] = [spec("i64", [1, "seq"]), spec("f32", ["seq", "past+seq"])];
  const cached = spec("f32", [1, "past", widthOf(config)]);
  return {
    ids: tokens,
    positions: tokens,
    mask,
    ...(windowOf(config) !== null && { windowMask: mask }),
    layers: Array.from({ length: config.layers }, () => ({ keys: cached, values: cached })),
  };
}

const row = (values: readonly number[]): HostTensor =>
  new HostTensor("i64", [1, values.length], BigInt64Array.from(values, BigInt));

/** What is added to the scores of `count` tokens behind `past`, each seeing back `window` positions, itself included. */
function maskOf(past: number, count: number, window: number): HostTensor {
  const total = past + count;
  const mask = new Float32Array(count * total);
  for (let i = 0; i < count; i++) {
    const own = past + i;
    mask.fill(HIDDEN, i * total, i * total + Math.max(0, own - window + 1));
    mask.fill(HIDDEN, i * total + own + 1, (i + 1) * total);
  }
  return new HostTensor("f32", [count, total], mask);
}
