import { PareError } from "../tensor/index.ts";

/** A task's definition or data that cannot be used: a missing or malformed field, a row without what a template asks for. */
export class TaskError extends PareError {
  override readonly code = "TASK";
}

/** The process that runs generated programs cannot be started. */
export class SandboxError extends PareError {
  override readonly code = "SANDBOX";
}
