import { type DecoderConfig, decoderBlock, embedTokens, finalNorm, type Weights } from "../../models/index.ts";
import { capture, type Weight } from "../../nn/index.ts";
import { type CompileOptions, compile, compileLoop, type Traced } from "../../runtime/index.ts";
import { HostTensor, spec, type Tensor } from "../../tensor/index.ts";
import { fed } from "./half.ts";
import { addInputs, emptySums, type InputStatistics, type InputSums, statisticsOf } from "./statistics.ts";

/** Tokens that one run of a program takes at most; more would not be faster. */
const MOST_TOKENS = 4096;

/**
 * The residual stream of all calibration windows, taken through the model layer by layer. Weights are inputs of the
 * programs, so that layers of one form share a session.
 */
export class HiddenStates {
  readonly #config: DecoderConfig;
  readonly #options: CompileOptions;
  readonly #count: number;
  readonly #length: number;
  /** Windows in one run: a divisor of their number. */
  readonly #batch: number;
  /** `f32 [windows, seq, dim]`. */
  #values: HostTensor;
  /** The last programs, kept so that the next find their sessions open. */
  #kept: AsyncDisposable[] = [];

  /** @param windows number of windows and tokens in each */
  constructor(config: DecoderConfig, [count, length]: readonly [number, number], options: CompileOptions = {}) {
    this.#config = config;
    this.#options = options;
    this.#count = count;
    this.#length = length;
    this.#batch = 1;
    for (let n = 1; n <= count && n * length <= MOST_TOKENS; n++) if (count % n === 0) this.#batch = n;
    this.#values = HostTensor.zeros("f32", [count, length, config.dim]);
  }

  get values(): HostTensor {
    return this.#values;
  }

  /** Goes on from values that were saved. */
  set values(values: HostTensor) {
    this.#values = new HostTensor("f32", this.#values.shape, values.data);
  }

  /** Starts with the embeddings of `windows i64 [windows, seq]`. */
  async embed(table: Weight, windows: HostTensor): Promise<void> {
    const embedding = fed(table);
    const ids = spec("i64", [this.#batch, this.#length]);
    const program = await compile(
      (weight, batch) => embedTokens(this.#config, { "model.embed_tokens.weight": weight as Weight }, batch),
      [embedding, ids] as const,
      this.#options,
    );
    try {
      await this.#runs(async (slice) => program(embedding as never, slice(windows)));
    } finally {
      await program.dispose();
    }
  }

  /** Replaces the stream by what layer `index` makes of it. @param weights those of the layer */
  async advance(index: number, weights: Weights): Promise<void> {
    const bare = stripped(index, weights);
    const program = await compile(
      (layer, hidden) => decoderBlock(this.#config, prefixed(index, layer as Weights), index, hidden),
      [bare, this.#spec()] as const,
      this.#options,
    );
    await this.#runs(async (slice) => program(bare as never, slice(this.#values)));
    await this.#keep(program);
  }

  /** Statistics of what the matrices of layer `index` are multiplied with, by the names of `points`. */
  async statistics(
    index: number,
    weights: Weights,
    points: ReadonlyMap<string, number>,
  ): Promise<Map<string, InputStatistics>> {
    return this.#statistics(stripped(index, weights), points, (bare, hidden) =>
      decoderBlock(this.#config, prefixed(index, bare), index, hidden),
    );
  }

  /** Statistics of the head's inputs. */
  async finalStatistics(norm: HostTensor): Promise<InputStatistics> {
    const points = new Map([["model.norm", this.#config.dim]]);
    const found = await this.#statistics({ "model.norm.weight": norm }, points, (weights, hidden) =>
      finalNorm(this.#config, weights, hidden),
    );
    return found.get("model.norm")!;
  }

  async #statistics(
    weights: Weights,
    points: ReadonlyMap<string, number>,
    forward: (weights: Weights, hidden: Tensor) => Tensor,
  ): Promise<Map<string, InputStatistics>> {
    // The sums are numbered, because the names of points hold the number of the layer.
    const keys = [...points.keys()];
    const initial = [...points.values()].map(emptySums);
    const loop = await compileLoop(
      (sums: Traced<InputSums[]>, bare, hidden) => {
        const { captured } = capture(
          (name) => points.has(name),
          () => forward(bare as Weights, hidden),
        );
        return { state: sums.map((sum, i) => addInputs(sum, captured[keys[i]!]!)), result: {} };
      },
      initial,
      [weights, this.#spec()] as const,
      this.#options,
    );
    await this.#runs(async (slice) => {
      await loop.run(weights as never, slice(this.#values));
      return null;
    });
    const sums = await loop.state();
    await this.#keep(loop);
    return new Map(keys.map((point, i) => [point, statisticsOf(point, this.#count * this.#length, sums[i]!)]));
  }

  /** Runs `step` on one batch of windows after the other; what it returns becomes the stream. */
  async #runs(step: (slice: (of: HostTensor) => HostTensor) => Promise<HostTensor | null>): Promise<void> {
    for (let first = 0; first < this.#count; first += this.#batch) {
      const result = await step((of) => rows(of, first, first + this.#batch));
      if (result)
        (rows(this.#values, first, first + this.#batch).data as Float32Array).set(result.data as Float32Array);
    }
  }

  #spec() {
    return spec("f32", [this.#batch, this.#length, this.#config.dim]);
  }

  /** Holds a program and lets the one go that was held two programs before: the same half of the layer before. */
  async #keep(program: AsyncDisposable): Promise<void> {
    this.#kept.push(program);
    if (this.#kept.length > 2) await this.#kept.shift()![Symbol.asyncDispose]();
  }

  async [Symbol.asyncDispose](): Promise<void> {
    for (const program of this.#kept.splice(0)) await program[Symbol.asyncDispose]();
  }
}

/** Rows [start, end) along the first axis; memory is shared. */
function rows(tensor: HostTensor, start: number, end: number): HostTensor {
  const width = tensor.size / tensor.shape[0]!;
  return new HostTensor(
    tensor.dtype,
    [end - start, ...tensor.shape.slice(1)],
    tensor.data.subarray(start * width, end * width),
  );
}

const prefix = (index: number): string => `model.layers.${index}.`;

/** A layer's weights without its number, which programs of other layers must not differ by. */
function stripped(index: number, weights: Weights): Weights {
  const entries = Object.entries(weights).filter(([name]) => name.startsWith(prefix(index)));
  return Object.fromEntries(entries.map(([name, weight]) => [name.slice(prefix(index).length), fed(weight)]));
}

function prefixed(index: number, weights: Weights): Weights {
  return Object.fromEntries(Object.entries(weights).map(([name, weight]) => [prefix(index) + name, weight]));
}
