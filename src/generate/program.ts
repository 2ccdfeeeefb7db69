import {
  attendingLayers,
  checkWeights,
  type DecoderConfig,
  decode,
  headLogits,
  slidingWindow,
  type Weights,
} from "../models/index.ts";
import { fuseNorms } from "../onnx/index.ts";
import { compile, type Device, type DeviceOptions } from "../runtime/index.ts";
import { gather, HostTensor, ints, spec, type Tensor, type TensorSpec } from "../tensor/index.ts";
import {
  type CacheFormat,
  cachedTensors,
  cacheSpecs,
  type KeysAndValues,
  type KeyValueCache,
  type LayerParts,
  type RowRange,
} from "./cache.ts";

/** What one run takes: `n` new tokens of each of `batch` texts behind `past` cached rows. */
interface StepInputs<T> {
  /** `i64 [batch, n]` */
  readonly ids: T;
  /** `i64 [batch, n]` */
  readonly positions: T;
  /** `f32 [batch, 1, n, past + n]`, added to the attention scores of layers that see all. */
  readonly mask?: T;
  /** The same for layers with a window, which are given no rows that they cannot see. */
  readonly windowMask?: T;
  /** Of the layers that have attention. */
  readonly layers: readonly LayerParts<T>[];
}

interface StepOutputs<T> {
  /** `f32 [batch, 1, vocab]`, of the last tokens. */
  readonly logits: T;
  /** The new rows of the layers that have attention, `f32 [batch, n, kvHeads * headDim]`. */
  readonly rows: readonly KeysAndValues<T>[];
}

interface Step {
  (inputs: StepInputs<HostTensor>): Promise<StepOutputs<HostTensor>>;
  readonly device: Device;
  dispose(): Promise<void>;
}

/** As `causalMask` hides keys. */
const HIDDEN = -1e30;

/** A decoder compiled for reading prompts and for decoding, one text or several at a time; the weights are constants of it. */
export class DecoderProgram {
  readonly config: DecoderConfig;
  readonly format: CacheFormat;
  readonly #step: Step;
  readonly #window: number | null;

  private constructor(config: DecoderConfig, format: CacheFormat, step: Step) {
    this.config = config;
    this.format = format;
    this.#step = step;
    this.#window = slidingWindow(config);
  }

  /** @throws ModelError when weights and configuration do not fit; DeviceError when the device is missing */
  static async compile(
    config: DecoderConfig,
    weights: Weights,
    format: CacheFormat,
    device: DeviceOptions,
  ): Promise<DecoderProgram> {
    checkWeights(config, weights);
    const step = (inputs: StepInputs<Tensor>): StepOutputs<Tensor> => {
      const layers = inputs.layers.map((layer) => cachedTensors(config, layer));
      const { hidden, rows } = decode(config, weights, inputs.ids, {
        ...inputs,
        layers,
        mask: (inputs.mask ?? inputs.windowMask)!,
      });
      const last = gather(hidden, ints([-1]), 1);
      return fuseNorms({ logits: headLogits(config, weights, last), rows });
    };
    const program = await compile(step, [stepSpecs(config, format)], { ...device, names: ["in"] });
    return new DecoderProgram(config, format, program);
  }

  get device(): Device {
    return this.#step.device;
  }

  dispose(): Promise<void> {
    return this.#step.dispose();
  }

  /**
   * Reads `ids`, equally many for each text, behind the first `past` rows of each in the cache, which has room for
   * theirs, and adds these.
   * @returns logits `[vocab]` behind each text
   */
  async run(
    cache: KeyValueCache,
    past: readonly number[],
    ids: readonly (readonly number[])[],
  ): Promise<Float32Array[]> {
    const [texts, count] = [ids.length, ids[0]!.length];
    const window = this.#window ?? Number.POSITIVE_INFINITY;
    const all = rangeOf(cache, past, Number.POSITIVE_INFINITY);
    const near = rangeOf(cache, past, window);
    const { logits, rows } = await this.#step({
      ids: integers(ids),
      positions: integers(past.map((start) => Array.from({ length: count }, (_, i) => start + i))),
      ...(seesAll(this.config) && { mask: maskOf(past, count, all, Number.POSITIVE_INFINITY) }),
      ...(this.#window !== null && { windowMask: maskOf(past, count, near, window) }),
      layers: cachedWindows(this.config).map((size, i) => cache.view(i, texts, size === null ? all : near)),
    });
    rows.forEach((layer, i) => {
      for (let text = 0; text < texts; text++)
        cache.write(text, past[text]!, i, { keys: part(layer.keys, text), values: part(layer.values, text) });
    });
    return past.map((_, text) => part(logits, text));
  }
}

/** Entry `i` along the first axis. */
function part({ data, shape }: HostTensor, i: number): Float32Array {
  const size = data.length / shape[0]!;
  return (data as Float32Array).subarray(i * size, (i + 1) * size);
}

/** The windows of the layers that have attention. */
const cachedWindows = (config: DecoderConfig): (number | null)[] =>
  attendingLayers(config).map((layer) => config.window[layer]!);

const seesAll = ({ window }: DecoderConfig): boolean => window.includes(null);

function stepSpecs(config: DecoderConfig, format: CacheFormat): StepInputs<TensorSpec> {
  const tokens = spec("i64", ["batch", "n"]);
  const mask = (rows: string): TensorSpec => spec("f32", ["batch", 1, "n", `${rows}+n`]);
  return {
    ids: tokens,
    positions: tokens,
    ...(seesAll(config) && { mask: mask("past") }),
    ...(slidingWindow(config) !== null && { windowMask: mask("near") }),
    layers: cachedWindows(config).map((size) => cacheSpecs(config, format, size === null ? "past" : "near")),
  };
}

function integers(rows: readonly (readonly number[])[]): HostTensor {
  return new HostTensor("i64", [rows.length, rows[0]!.length], BigInt64Array.from(rows.flat(), BigInt));
}

/** The rows to look at: of one text those that its next token's window reaches, of several all that there is room for. */
function rangeOf({ capacity }: KeyValueCache, past: readonly number[], window: number): RowRange {
  if (past.length > 1) return { start: 0, count: capacity };
  const start = Math.max(0, past[0]! - window + 1);
  return { start, count: past[0]! - start };
}

/**
 * What is added to the scores of `count` tokens of each text, behind `past` tokens of which a range of rows is given,
 * each seeing back `window` positions, itself included.
 */
function maskOf(past: readonly number[], count: number, rows: RowRange, window: number): HostTensor {
  const total = rows.count + count;
  const mask = new Float32Array(past.length * count * total).fill(HIDDEN);
  past.forEach((length, text) => {
    for (let i = 0; i < count; i++) {
      const line = (text * count + i) * total;
      mask.fill(0, line + Math.max(0, length + i - window + 1 - rows.start), line + length - rows.start);
      mask.fill(0, line + rows.count + Math.max(0, i - window + 1), line + rows.count + i + 1);
    }
  });
  return new HostTensor("f32", [past.length, 1, count, total], mask);
}
