import { PareError } from "../tensor/index.ts";

/** A model whose configuration, architecture or weights pare cannot use. */
export class ModelError extends PareError {
  override readonly code = "MODEL";
}
