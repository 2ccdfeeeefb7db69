import { PareError } from "../tensor/index.ts";

/** A matrix that a decomposition cannot take: wrong shape or type, not finite, not symmetric, not positive definite. */
export class LinalgError extends PareError {
  override readonly code = "LINALG";
}
