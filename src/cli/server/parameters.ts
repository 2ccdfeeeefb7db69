import { isJsonObject, type JsonObject } from "../../formats/json.ts";
import { didYouMean } from "../../tensor/suggest.ts";
import { ApiError, refused } from "./errors.ts";

interface Range {
  readonly min?: number;
  readonly max?: number;
}

/**
 * The parameters of a request, read one by one. One that is null counts as one that is not there, as in OpenAI's
 * interface; those that nothing has read are refused in the end, since leaving them out could change the answer.
 */
export class Parameters {
  readonly #values: ReadonlyMap<string, unknown>;
  readonly #known = new Set<string>();

  constructor(body: JsonObject) {
    this.#values = new Map(Object.entries(body).filter(([, value]) => value !== null));
  }

  any(name: string): unknown {
    this.#known.add(name);
    return this.#values.get(name);
  }

  number(name: string, { min = Number.NEGATIVE_INFINITY, max = Number.POSITIVE_INFINITY }: Range = {}) {
    const value = this.any(name);
    if (value === undefined) return undefined;
    if (typeof value === "number" && value >= min && value <= max) return value;
    throw refused(name, `${name} must be a number${bounds(min, max)}, not ${shown(value)}`);
  }

  integer(name: string, { min = Number.MIN_SAFE_INTEGER, max = Number.MAX_SAFE_INTEGER }: Range = {}) {
    const value = this.any(name);
    if (value === undefined) return undefined;
    if (Number.isSafeInteger(value) && (value as number) >= min && (value as number) <= max) return value as number;
    throw refused(name, `${name} must be a whole number${bounds(min, max)}, not ${shown(value)}`);
  }

  boolean(name: string): boolean {
    const value = this.any(name) ?? false;
    if (typeof value === "boolean") return value;
    throw refused(name, `${name} must be true or false, not ${shown(value)}`);
  }

  string(name: string): string | undefined {
    const value = this.any(name);
    if (value === undefined || typeof value === "string") return value;
    throw refused(name, `${name} must be text, not ${shown(value)}`);
  }

  object(name: string): JsonObject | undefined {
    const value = this.any(name);
    if (value === undefined || isJsonObject(value)) return value;
    throw refused(name, `${name} must be an object, not ${shown(value)}`);
  }

  /** Parameters that change nothing about the answer. */
  ignore(...names: readonly string[]): void {
    for (const name of names) this.#known.add(name);
  }

  /** A parameter that may be there as long as it asks for nothing. @param neutral JSON of what that is */
  unsupported(name: string, ...neutral: readonly string[]): void {
    const value = this.any(name);
    if (value === undefined || neutral.includes(JSON.stringify(value))) return;
    throw new ApiError(400, `${name} is not supported here: ${shown(value)}`, { param: name, reason: "unsupported" });
  }

  /** Refuses what is left. */
  end(): void {
    const unknown = [...this.#values.keys()].find((name) => !this.#known.has(name));
    if (unknown === undefined) return;
    const message = `unknown parameter ${unknown}${didYouMean(unknown, [...this.#known])}`;
    throw new ApiError(400, message, { param: unknown, reason: "unknown_parameter" });
  }
}

function bounds(min: number, max: number): string {
  const low = min > Number.MIN_SAFE_INTEGER ? ` from ${min}` : "";
  return max < Number.MAX_SAFE_INTEGER ? `${low} to ${max}` : low;
}

/** A value as error messages show it. */
export function shown(value: unknown): string {
  const text = JSON.stringify(value);
  return text.length > 60 ? `${text.slice(0, 57)}...` : text;
}
