import type { Rng } from "../../../tensor/index.ts";
import { GaussianProcess } from "../gaussian-process.ts";
import { type MixedPoint, mixedKernel } from "../kernel.ts";
import { type Architecture, architecturePoint, POINT_NUMBERS, type SearchSpace } from "./architecture.ts";

export interface LatencySample {
  readonly architecture: Architecture;
  readonly ttftMs: number;
}

/** Predicts the latency of architectures that were never run, from some that were: a Gaussian process on its logarithm. */
export class LatencyModel {
  readonly #process: GaussianProcess<MixedPoint>;
  readonly #place: (x: Architecture) => MixedPoint;

  private constructor(process: GaussianProcess<MixedPoint>, place: (x: Architecture) => MixedPoint) {
    this.#process = process;
    this.#place = place;
  }

  /** @throws ArgumentError for less than two samples */
  static async fit(samples: readonly LatencySample[], space: SearchSpace, rng: Rng): Promise<LatencyModel> {
    const place = architecturePoint(space);
    const inputs = samples.map(({ architecture }) => place(architecture));
    const logs = samples.map(({ ttftMs }) => Math.log(ttftMs));
    return new LatencyModel(await GaussianProcess.fit(mixedKernel(POINT_NUMBERS), inputs, logs, { rng }), place);
  }

  predict(x: Architecture): { readonly meanMs: number; readonly stdMs: number } {
    const { mean, std } = this.#process.predict(this.#place(x));
    return { meanMs: Math.exp(mean), stdMs: Math.exp(mean) * std };
  }

  /** Of log latencies that are each predicted from all others, the share of variance that is explained. */
  get leaveOneOutR2(): number {
    return this.#process.leaveOneOutR2;
  }
}
