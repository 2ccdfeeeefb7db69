import { fwht } from "../../linalg/index.ts";
import { transposed } from "../../models/host-matrices.ts";
import { asWeight, Dense, TransformedWeight } from "../../nn/index.ts";
import { ArgumentError, HostTensor, isHostTensor, Rng } from "../../tensor/index.ts";
import { foldGains } from "./fold-gains.ts";
import type { MatrixMethod } from "./method.ts";
import { denseValues } from "./report.ts";
import type { DecoderSource } from "./source.ts";
import type { InputStatistics } from "./statistics.ts";

/**
 * The same model with its residual stream turned by a random orthogonal matrix (QuaRot, Ashkboos et al. 2024, stage 1a),
 * which spreads outlier channels over all of them. `Q` is a Hadamard matrix with random signs; where the width has none,
 * neighbours are turned in blocks of the largest order that divides it. The gains of the norms are folded away first, as
 * only an RMS norm without gain commutes with `Q`, and a tied head gets a matrix of its own: see `foldGains`. Matrices that
 * read the stream become `W diag(gain) Q`, those that write to it `Q^T W`; nothing is left to be done at run time.
 * @throws ArgumentError for models with norms that do not commute
 */
export function rotateResidual(source: DecoderSource, { seed = 0 }: { readonly seed?: number } = {}): DecoderSource {
  const bare = foldGains(source);
  const { dim } = bare.config;
  const rng = new Rng(seed);
  const signs = Float32Array.from({ length: dim }, () => (rng.uniform() < 0.5 ? -1 : 1));
  const order = hadamardOrder(dim, [1, 12, 20]);
  const turn = (rows: Float32Array): Float32Array => {
    const turned = rows.map((v, i) => v * signs[i % dim]!);
    fwht(turned, order);
    return turned;
  };
  return {
    config: bare.config,
    async read(name) {
      const weight = await bare.read(name);
      const writes = /\.(?:o|down)_proj\.(?:weight|bias)$/.test(name);
      const reads = /(?:embed_tokens|lm_head|\.(?:q|k|v|gate|up)_proj)\.weight$/.test(name);
      if (!writes && !reads) return weight;
      const values = isHostTensor(weight) && weight.shape.length === 1 ? weight : await denseValues(asWeight(weight));
      if (values.shape.length === 1) return new HostTensor("f32", values.shape, turn(values.data as Float32Array));
      const rows = writes ? transposed(values) : values;
      const turned = new HostTensor("f32", rows.shape, turn(rows.data as Float32Array));
      return new Dense(writes ? transposed(turned) : turned);
    },
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
function hadamardOrder(width: number, bases: readonly number[]): number {
  const orders = bases.flatMap((base) => {
    if (width % base !== 0) return [];
    let order = base;
    while (width % (2 * order) === 0) order *= 2;
    return [order];
  });
  return Math.max(...orders);
}
