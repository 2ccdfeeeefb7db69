import { PareError } from "../tensor/index.ts";

/** More context than the model has positions for. */
export class ContextError extends PareError {
  override readonly code = "CONTEXT";
}

/** A session used in a way that would mix up its context, or a model that gives no usable logits. */
export class GenerateError extends PareError {
  override readonly code = "GENERATE";
}
