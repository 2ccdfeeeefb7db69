import { PareError } from "../../tensor/index.ts";

/** Rewards do not tell completions apart, so that there is nothing to learn. */
export class NoLearningSignalError extends PareError {
  override readonly code = "NO_LEARNING_SIGNAL";
}

/** The loss of a policy left the real numbers. */
export class PolicyDivergedError extends PareError {
  override readonly code = "DIVERGED";
}
