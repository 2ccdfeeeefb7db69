import { PareError } from "../../tensor/index.ts";

/** A saved state that another run left behind. */
export class StateError extends PareError {
  override readonly code = "STATE";
}
