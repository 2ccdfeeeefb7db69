import { PareError } from "../tensor/errors.ts";

/** A command line that pare cannot make sense of: an unknown command or option, a missing or malformed value. */
export class UsageError extends PareError {
  override readonly code = "USAGE";
}
