import type { DecoderConfig, Weights } from "../../../models/index.ts";
import type { optim } from "../../../nn/index.ts";

/** A decoder as training takes and gives it. */
export interface TrainedModel {
  readonly config: DecoderConfig;
  readonly weights: Weights;
}

/** A way to train that decides what changes and what comes out of it: everything, adapters, weights of few bits. */
export interface TrainingMethod {
  /** With its settings, for reports; a run only goes on under the same name. */
  readonly name: string;
  /** Highest learning rate (of AdamW) unless told otherwise. */
  readonly rate: number;
  /** The model as training changes it. @throws ArgumentError for a model that it cannot train */
  start(model: TrainedModel): Promise<TrainedModel>;
  /** Which parameters are trained, by path in the tree of weights. Default: all. */
  readonly trainable?: (path: string) => boolean;
  /** The rule that moves parameters, around or instead of `inner`, for a run of `steps`. */
  optimizer?(inner: optim.Optimizer, steps: number): optim.Optimizer;
  /** The trained model as it is saved and run. */
  finish(model: TrainedModel): Promise<TrainedModel>;
}
