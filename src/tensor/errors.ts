/**
 * Errors that pare raises on purpose. Each kind is a class with a stable `code`; the message says what was
 * wrong, where, and what to do about it.
 */
export class PareError extends Error {
  /** Stable identifier of the kind of error, safe to compare in programs. */
  readonly code: string = "PARE";

  constructor(message: string, options?: { cause?: unknown }) {
    super(message, options);
    this.name = new.target.name;
  }
}

/** Shapes that do not fit an operation. */
export class ShapeError extends PareError {
  override readonly code = "SHAPE";
}

/** Element types that do not fit an operation. */
export class DTypeError extends PareError {
  override readonly code = "DTYPE";
}

/** An argument outside its domain: an axis out of range, a negative count, an option that does not exist. */
export class ArgumentError extends PareError {
  override readonly code = "ARGUMENT";
}

/** A program that cannot be differentiated or lowered as written. */
export class GraphError extends PareError {
  override readonly code = "GRAPH";
}

/** This library's own source folder, so that stack frames inside it can be skipped. */
const home = new URL("../", import.meta.url).href;

/**
 * The first stack frame outside of the library, as ` (file:line:column)`, or an empty string when the
 * engine gives no usable stack. Only called while an error is being made, so tracing itself pays nothing.
 */
export function callerLine(): string {
  const before = Error.stackTraceLimit;
  Error.stackTraceLimit = 40;
  const stack = new Error().stack ?? "";
  Error.stackTraceLimit = before;
  for (const line of stack.split("\n").slice(1)) {
    const place = /\(?((?:file:\/\/|https?:\/\/|\/|[A-Za-z]:\\)[^()\s]+:\d+:\d+)\)?$/.exec(line)?.[1];
    if (!place) continue;
    const url = place.startsWith("/") ? `file://${place}` : place;
    if (url.startsWith(home) || url.includes("/node_modules/") || url.startsWith("node:")) continue;
    return ` (at ${place.replace(/^file:\/\//, "")})`;
  }
  return "";
}
