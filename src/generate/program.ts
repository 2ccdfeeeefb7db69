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
import {
  ArgumentError,
  flattenTree,
  formatShape,
  gather,
  HostTensor,
  ints,
  isHostTensor,
  mapTree,
  sameShape,
  spec,
  type Tensor,
  type TensorSpec,
} from "../tensor/index.ts";
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

/** Tensors inside of weights by path, such as `model.layers.0.mlp.up_proj.weight.values`. */
type Values<T> = Readonly<Record<string, T>>;

interface Step {
  (inputs: StepInputs<HostTensor>, weights: Values<HostTensor>): Promise<StepOutputs<HostTensor>>;
  readonly device: Device;
  dispose(): Promise<void>;
}

/** As `causalMask` hides keys. */
const HIDDEN = -1e30;

/**
 * A decoder compiled for reading prompts and for decoding, one text or several at a time. The weights are constants of
 * it, but for those that may be replaced.
 */
export class DecoderProgram {
  readonly config: DecoderConfig;
  readonly format: CacheFormat;
  readonly #step: Step;
  readonly #window: number | null;
  #weights: Values<HostTensor>;

  private constructor(config: DecoderConfig, format: CacheFormat, step: Step, weights: Values<HostTensor>) {
    this.config = config;
    this.format = format;
    this.#step = step;
    this.#window = slidingWindow(config);
    this.#weights = weights;
  }

  /**
   * @param replaceable which tensors of the weights, by path, `replace` may change later
   * @throws ModelError when weights and configuration do not fit; DeviceError when the device is missing
   */
  static async compile(
    config: DecoderConfig,
    weights: Weights,
    format: CacheFormat,
    device: DeviceOptions,
    replaceable: (path: string) => boolean = () => false,
  ): Promise<DecoderProgram> {
    checkWeights(config, weights);
    const loose = Object.fromEntries(
      Object.entries(flattenTree(weights, isHostTensor)).filter(([path]) => replaceable(path)),
    );
    const step = (inputs: StepInputs<Tensor>, given: Values<Tensor>): StepOutputs<Tensor> => {
      const own = mapTree(weights, isHostTensor, (leaf, path) => given[path] ?? leaf) as Weights;
      const layers = inputs.layers.map((layer) => cachedTensors(config, layer));
      const { hidden, rows } = decode(config, own, inputs.ids, {
        ...inputs,
        layers,
        mask: (inputs.mask ?? inputs.windowMask)!,
      });
      const last = gather(hidden, ints([-1]), 1);
      return fuseNorms({ logits: headLogits(config, own, last), rows });
    };
    const specs = [stepSpecs(config, format), loose] as const;
    const program = await compile(step, specs, { ...device, names: ["in", "weights"] });
    return new DecoderProgram(config, format, program, loose);
  }

  get device(): Device {
    return this.#step.device;
  }

  /**
   * Goes on with other values of weights; what is cached was read with the old ones.
   * @throws ArgumentError for a tensor that was not declared replaceable, or of another type or shape
   */
  replace(values: Values<HostTensor>): void {
    for (const [path, value] of Object.entries(values)) {
      const present = this.#weights[path];
      if (!present)
        throw new ArgumentError(
          `"${path}" cannot be replaced: it is a constant of the program; declare it replaceable when you open it`,
        );
      if (value.dtype !== present.dtype || !sameShape(value.shape, present.shape))
        throw new ArgumentError(
          `"${path}" is ${present.dtype} ${formatShape(present.shape)} and cannot become ${value.dtype} ${formatShape(value.shape)}`,
        );
    }
    this.#weights = { ...this.#weights, ...values };
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
    const inputs: StepInputs<HostTensor> = {
      ids: integers(ids),
      positions: integers(past.map((start) => Array.from({ length: count }, (_, i) => start + i))),
      ...(seesAll(this.config) && { mask: maskOf(past, count, all, Number.POSITIVE_INFINITY) }),
      ...(this.#window !== null && { windowMask: maskOf(past, count, near, window) }),
      layers: cachedWindows(this.config).map((size, i) => cache.view(i, texts, size === null ? all : near)),
    };
    const { logits, rows } = await this.#step(inputs, this.#weights);
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
