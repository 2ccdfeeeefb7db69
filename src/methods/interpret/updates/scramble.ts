import { randomOrthogonal } from "../../../linalg/index.ts";
import { checkWeights, type DecoderConfig, ModelError, type Weights } from "../../../models/index.ts";
import { Dense } from "../../../nn/index.ts";
import { ArgumentError, HostTensor, isHostTensor, type Leaf, type Rng } from "../../../tensor/index.ts";

/**
 * What of a layer is put into other coordinates: values and the matrix behind them (`vo`), queries and keys by rotations
 * that commute with those of the positions (`qk`), the order of heads, the order of hidden neurons (`ffn`).
 */
export type Scramble = "vo" | "qk" | "heads" | "ffn";

export interface ScrambleOptions {
  readonly layers: readonly number[];
  readonly kinds: readonly Scramble[];
  readonly rng: Rng;
}

/** Rows of a matrix or entries of a vector, in double precision while they are worked on. */
interface Table {
  readonly name: string;
  readonly rows: number;
  readonly cols: number;
  readonly data: Float64Array;
}

/**
 * A decoder that computes the same function with other weights: the chosen layers are rotated and permuted at random, so
 * that their singular vectors and where their large entries lie say nothing of the original's. Training goes on from it
 * as from the original, which tells whether what it changes depends on the coordinates (Zhu et al. 2025, section 4).
 * Heads that share keys and values move together. Results are in `f32`.
 * @throws ArgumentError for a layer that is none, or a kind that the architecture rules out; ModelError for weights that
 *   are not dense
 */
export async function scrambleGeometry(
  config: DecoderConfig,
  weights: Weights,
  { layers, kinds, rng }: ScrambleOptions,
): Promise<Weights> {
  checkWeights(config, weights);
  const wrong = layers.find((layer) => !(Number.isInteger(layer) && layer >= 0 && layer < config.layers));
  if (wrong !== undefined)
    throw new ArgumentError(`the model has the layers 0 to ${config.layers - 1}, and no layer ${wrong}`);
  if (kinds.includes("qk") && config.qkNorm)
    throw new ArgumentError(
      `queries and keys of a ${config.type} go through norms with a gain for each number, which no rotation leaves as they are; leave "qk" out`,
    );
  const result: Record<string, Dense | Leaf> = { ...(weights as Record<string, Dense | Leaf>) };
  for (const layer of layers) {
    const scrambler = new LayerScrambler(config, result, layer, rng.fork(`layer ${layer}`));
    for (const kind of kinds) await scrambler[kind]();
    scrambler.store();
  }
  return result;
}

class LayerScrambler {
  readonly #config: DecoderConfig;
  readonly #weights: Record<string, Dense | Leaf>;
  readonly #prefix: string;
  readonly #rng: Rng;
  readonly #tables = new Map<string, Table>();

  constructor(config: DecoderConfig, weights: Record<string, Dense | Leaf>, layer: number, rng: Rng) {
    this.#config = config;
    this.#weights = weights;
    this.#prefix = `model.layers.${layer}`;
    this.#rng = rng;
  }

  async vo(): Promise<void> {
    const { kvHeads, headDim, heads } = this.#config;
    const group = heads / kvHeads;
    const out = this.#table("self_attn.o_proj.weight");
    // A layer may have no attention.
    if (!out) return;
    for (let head = 0; head < kvHeads; head++) {
      const turn = Float64Array.from(
        (await randomOrthogonal(this.#rng.fork(`vo ${head}`), headDim)).cast("f64").data as Float64Array,
      );
      for (const table of this.#rowsOf("self_attn.v_proj")) turnRows(table, turn, headDim, head * headDim);
      for (let q = head * group; q < (head + 1) * group; q++) turnColumns(out, turn, headDim, q * headDim);
    }
  }

  async qk(): Promise<void> {
    const { kvHeads, headDim, heads } = this.#config;
    const group = heads / kvHeads;
    for (let head = 0; head < kvHeads; head++) {
      const turn = planeRotations(this.#rng.fork(`qk ${head}`), headDim);
      for (const table of this.#rowsOf("self_attn.k_proj")) turnRows(table, turn, headDim, head * headDim);
      for (const table of this.#rowsOf("self_attn.q_proj"))
        for (let q = head * group; q < (head + 1) * group; q++) turnRows(table, turn, headDim, q * headDim);
    }
  }

  async heads(): Promise<void> {
    const { kvHeads, headDim, heads } = this.#config;
    const group = heads / kvHeads;
    const out = this.#table("self_attn.o_proj.weight");
    if (!out) return;
    const rng = this.#rng.fork("heads");
    const shared = rng.permutation(kvHeads);
    const own = shared.flatMap((head) => rng.permutation(group).map((q) => head * group + q));
    const numbers = (order: readonly number[]): number[] =>
      order.flatMap((head) => Array.from({ length: headDim }, (_, i) => head * headDim + i));
    for (const name of ["k_proj", "v_proj"])
      for (const table of this.#rowsOf(`self_attn.${name}`)) permuteRows(table, numbers(shared));
    for (const table of this.#rowsOf("self_attn.q_proj")) permuteRows(table, numbers(own));
    permuteColumns(out, numbers(own));
  }

  async ffn(): Promise<void> {
    const order = this.#rng.fork("ffn").permutation(this.#config.ffn);
    for (const name of this.#config.gated ? ["gate_proj", "up_proj"] : ["up_proj"])
      for (const table of this.#rowsOf(`mlp.${name}`)) permuteRows(table, order);
    permuteColumns(this.#table("mlp.down_proj.weight")!, order);
  }

  /** Puts what was changed back among the weights. */
  store(): void {
    for (const { name, rows, cols, data } of this.#tables.values()) {
      const vector = name.endsWith(".bias");
      const tensor = new HostTensor("f32", vector ? [rows] : [rows, cols], Float32Array.from(data));
      this.#weights[name] = vector ? tensor : new Dense(tensor);
    }
  }

  /** The matrix of a layer, and its bias where it has one, as a column. */
  #rowsOf(layer: string): Table[] {
    return [this.#table(`${layer}.weight`)!, this.#table(`${layer}.bias`)].filter((t) => t !== undefined);
  }

  #table(part: string): Table | undefined {
    const name = `${this.#prefix}.${part}`;
    const weight = this.#weights[name];
    if (!weight) return undefined;
    let table = this.#tables.get(name);
    if (!table) {
      const values = weight instanceof Dense ? weight.values : weight;
      if (!isHostTensor(values))
        throw new ModelError(
          `"${name}" is represented as ${(weight as Dense).kind}; only dense weights can be rotated`,
        );
      const [rows, cols = 1] = values.shape as [number, number?];
      table = { name, rows, cols, data: Float64Array.from(values.cast("f64").data as Float64Array) };
      this.#tables.set(name, table);
    }
    return table;
  }
}

/** A rotation in each plane that rotary positions turn: of the numbers `i` and `i + headDim / 2`. */
function planeRotations(rng: Rng, headDim: number): Float64Array {
  const half = headDim / 2;
  const turn = new Float64Array(headDim * headDim);
  for (let i = 0; i < half; i++) {
    const angle = rng.uniform(0, 2 * Math.PI);
    const [cos, sin] = [Math.cos(angle), Math.sin(angle)];
    turn[i * headDim + i] = cos;
    turn[i * headDim + i + half] = -sin;
    turn[(i + half) * headDim + i] = sin;
    turn[(i + half) * headDim + i + half] = cos;
  }
  return turn;
}

/** Rows `start` to `start + n` become `turn` times them. */
function turnRows({ cols, data }: Table, turn: Float64Array, n: number, start: number): void {
  const old = data.slice(start * cols, (start + n) * cols);
  for (let i = 0; i < n; i++)
    for (let c = 0; c < cols; c++) {
      let sum = 0;
      for (let j = 0; j < n; j++) sum += turn[i * n + j]! * old[j * cols + c]!;
      data[(start + i) * cols + c] = sum;
    }
}

/** Columns `start` to `start + n` become themselves times the transpose of `turn`. */
function turnColumns({ rows, cols, data }: Table, turn: Float64Array, n: number, start: number): void {
  for (let r = 0; r < rows; r++) {
    const at = r * cols + start;
    const old = data.slice(at, at + n);
    for (let i = 0; i < n; i++) {
      let sum = 0;
      for (let j = 0; j < n; j++) sum += turn[i * n + j]! * old[j]!;
      data[at + i] = sum;
    }
  }
}

/** Row `i` becomes the row that was at `order[i]`. */
function permuteRows({ rows, cols, data }: Table, order: readonly number[]): void {
  const old = data.slice();
  for (let i = 0; i < rows; i++) data.set(old.subarray(order[i]! * cols, (order[i]! + 1) * cols), i * cols);
}

function permuteColumns({ rows, cols, data }: Table, order: readonly number[]): void {
  const old = data.slice();
  for (let r = 0; r < rows; r++) for (let c = 0; c < cols; c++) data[r * cols + c] = old[r * cols + order[c]!]!;
}
