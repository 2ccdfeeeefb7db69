import { fwht, randomOrthogonal } from "../../linalg/index.ts";
import { transposed } from "../../models/host-matrices.ts";
import { asWeight, Dense, TransformedWeight } from "../../nn/index.ts";
import { compile } from "../../runtime/index.ts";
import { ArgumentError, HostTensor, isHostTensor, matmul, Rng, type Tensor } from "../../tensor/index.ts";
import { foldGains } from "./fold-gains.ts";
import type { MatrixMethod } from "./method.ts";
import { denseValues } from "./report.ts";
import type { DecoderSource } from "./source.ts";
import type { InputStatistics } from "./statistics.ts";

export interface RotationOptions {
  readonly seed?: number;
  /**
   * `blocks` (default): a Hadamard matrix with random signs, in blocks of the largest order that divides the width where
   * there is none of all of it; `hadamard`: no such blocks; `orthogonal`: a random orthogonal matrix, for any width.
   */
  readonly mode?: "blocks" | "hadamard" | "orthogonal";
}

/**
 * The same model with its residual stream turned by a random orthogonal matrix (QuaRot, Ashkboos et al. 2024, stage 1a),
 * which spreads outlier channels over all of them. The gains of the norms are folded away first, as
 * only an RMS norm without gain commutes with `Q`, and a tied head gets a matrix of its own: see `foldGains`. Matrices that
 * read the stream become `W diag(gain) Q`, those that write to it `Q^T W`; nothing is left to be done at run time.
 * @throws ArgumentError for models with norms that do not commute, and widths without the matrix asked for
 */
export function rotateResidual(
  source: DecoderSource,
  { seed = 0, mode = "blocks" }: RotationOptions = {},
): DecoderSource {
  const bare = foldGains(source);
  const turn =
    mode === "orthogonal" ? orthogonalTurn(bare.config.dim, seed) : hadamardTurn(bare.config.dim, seed, mode);
  return {
    config: bare.config,
    async read(name) {
      const weight = await bare.read(name);
      const writes = /\.(?:o|down)_proj\.(?:weight|bias)$/.test(name);
      const reads = /(?:embed_tokens|lm_head|\.(?:q|k|v|gate|up)_proj)\.weight$/.test(name);
      if (!writes && !reads) return weight;
      const values = isHostTensor(weight) && weight.shape.length === 1 ? weight : await denseValues(asWeight(weight));
      if (values.shape.length === 1)
        return new HostTensor("f32", values.shape, await turn(values.data as Float32Array));
      const rows = writes ? transposed(values) : values;
      const turned = new HostTensor("f32", rows.shape, await turn(rows.data as Float32Array));
      return new Dense(writes ? transposed(turned) : turned);
    },
  };
}

/** Multiplies rows by `Q`. */
type Turn = (rows: Float32Array) => Promise<Float32Array>;

function hadamardTurn(dim: number, seed: number, mode: "blocks" | "hadamard"): Turn {
  const rng = new Rng(seed);
  const signs = Float32Array.from({ length: dim }, () => (rng.uniform() < 0.5 ? -1 : 1));
  const order = hadamardOrder(dim, [1, 12, 20]);
  if (mode === "hadamard" && order !== dim)
    throw new ArgumentError(
      `there is no Hadamard matrix here of the width ${dim}, only of 2^k, 12 * 2^k and 20 * 2^k; turn it with mode "orthogonal", or in blocks of ${order} with mode "blocks"`,
    );
  return async (rows) => {
    const turned = rows.map((v, i) => v * signs[i % dim]!);
    fwht(turned, order);
    return turned;
  };
}

function orthogonalTurn(dim: number, seed: number): Turn {
  const matrix = randomOrthogonal(new Rng(seed), dim);
  return async (rows) => {
    const x = HostTensor.from(rows, { shape: [rows.length / dim, dim] });
    const q = await matrix;
    await using program = await compile((a: Tensor) => matmul(a, q), [x]);
    return (await program(x)).data as Float32Array;
  };
}

/**
 * Has the inputs of a matrix turned at run time by Hadamard transforms of blocks, the largest power of two that divides
 * their width, and `method` compress the matrix for turned inputs: for the down projection (QuaRot, stage 1b), and for the
 * output projection, where the paper folds a part of the transform into the values (stage 1c) and here all of it is done
 * at run time. Of turned inputs `X^T X` is known, but not the channels' magnitudes: methods that ask for these are refused.
 */
export function onlineHadamard(method: MatrixMethod): MatrixMethod {
  // Matrices with the same input share what is known of it, as methods share what they make of that.
  const known = new WeakMap<InputStatistics, InputStatistics>();
  return {
    name: `${method.name}, inputs turned`,
    calibrated: method.calibrated,
    async compress(job) {
      const order = hadamardOrder(job.weight.shape[1]!, [1]);
      let inputs = job.inputs && known.get(job.inputs);
      if (job.inputs && !inputs) {
        inputs = turnedStatistics(job.inputs, order);
        known.set(job.inputs, inputs);
      }
      const inner = await method.compress({ ...job, weight: turnedRows(job.weight, order), inputs: inputs ?? null });
      return new TransformedWeight(inner, { hadamard: order });
    },
  };
}

/** `H X^T X H` for inputs `X` that are turned by `H`. */
function turnedStatistics({ point, count, gram }: InputStatistics, order: number): InputStatistics {
  const refuse = (): never => {
    throw new ArgumentError(`of the turned inputs at "${point}" only their products are known, not their magnitudes`);
  };
  return {
    point,
    count,
    gram: turnedRows(transposed(turnedRows(gram, order)), order),
    get absMean() {
      return refuse();
    },
    get absMax() {
      return refuse();
    },
  };
}

function turnedRows({ shape, data }: HostTensor, order: number): HostTensor {
  const turned = (data as Float32Array).slice();
  fwht(turned, order);
  return new HostTensor("f32", shape, turned);
}

/** The largest order of a Hadamard matrix, `base * 2^k`, that divides `width`. */
export function hadamardOrder(width: number, bases: readonly number[]): number {
  const orders = bases.flatMap((base) => {
    if (width % base !== 0) return [];
    let order = base;
    while (width % (2 * order) === 0) order *= 2;
    return [order];
  });
  return Math.max(...orders);
}
