import { LinalgError } from "../../linalg/index.ts";
import { ArgumentError, HostTensor } from "../../tensor/index.ts";
import { inputsOf, type MatrixJob } from "./method.ts";

/** Damping is raised at most to this many times the diagonal's mean. */
const MOST_DAMPING = 10;

interface Factored {
  readonly factor: HostTensor;
  readonly damped: number;
}

/**
 * A Cholesky factor of the Hessian `X^T X` of matrices' inputs. Where the Hessian is singular, damping is raised tenfold
 * until there is a factor, and the report says so. Matrices with the same input share theirs.
 */
export class HessianFactors {
  readonly #factorize: (hessian: HostTensor) => Promise<HostTensor>;
  readonly #damping: number;
  readonly #factors = new WeakMap<HostTensor, Promise<Factored>>();

  /**
   * @param damping added to the Hessian's diagonal, as a share of its mean
   * @throws ArgumentError for damping below 0 or beyond 10
   */
  constructor(factorize: (hessian: HostTensor) => Promise<HostTensor>, damping: number) {
    if (!(damping >= 0 && damping <= MOST_DAMPING))
      throw new ArgumentError(`damping must be from 0 to ${MOST_DAMPING}, not ${damping}`);
    this.#factorize = factorize;
    this.#damping = damping;
  }

  /**
   * The factor for the inputs of `job`, `f64 [in, in]`.
   * @param order the channels as the factor has them, always the same for the same inputs
   * @throws ArgumentError where nothing is known of the inputs
   */
  async of(job: MatrixJob, order = naturalOrder(job)): Promise<HostTensor> {
    const { gram } = inputsOf(job);
    let found = this.#factors.get(gram);
    if (!found) {
      found = this.#damped(ordered(gram, order));
      this.#factors.set(gram, found);
    }
    const { factor, damped } = await found;
    if (damped !== this.#damping)
      job.note(`the Hessian is singular: its damping was raised from ${this.#damping} to ${damped}`);
    return factor;
  }

  async #damped(hessian: HostTensor): Promise<Factored> {
    const n = hessian.shape[0]!;
    const data = hessian.data as Float64Array;
    let mean = 0;
    for (let i = 0; i < n; i++) mean += data[i * n + i]! / n;
    // Without any input energy all channels are alike.
    if (mean === 0) mean = 1;
    for (let damped = this.#damping; ; damped = Math.max(10 * damped, 1e-4)) {
      const attempt = data.slice();
      for (let i = 0; i < n; i++) attempt[i * n + i]! += damped * mean;
      try {
        return { factor: await this.#factorize(new HostTensor("f64", [n, n], attempt)), damped };
      } catch (error) {
        if (!(error instanceof LinalgError) || damped >= MOST_DAMPING) throw error;
      }
    }
  }
}

/** A matrix's columns from left to right. */
export function naturalOrder({ weight }: MatrixJob): Int32Array {
  return Int32Array.from({ length: weight.shape[1]! }, (_, i) => i);
}

/** A Gram matrix with its channels in that order, in double precision. */
function ordered(gram: HostTensor, order: Int32Array): HostTensor {
  const n = order.length;
  const result = new Float64Array(n * n);
  const entry = (i: number, j: number): number => gram.data[order[i]! * n + order[j]!] as number;
  // Both halves, because rounding sums up differently in them.
  for (let i = 0; i < n; i++) for (let j = 0; j < n; j++) result[i * n + j] = (entry(i, j) + entry(j, i)) / 2;
  return new HostTensor("f64", [n, n], result);
}
