import { isJsonObject, type JsonObject } from "../../formats/json.ts";
import { didYouMean } from "../../tensor/suggest.ts";
import { TaskError } from "../errors.ts";

/** Typed access to an object of a task's file, which may hold anything. Errors name the file and the field. */
export class Fields {
  readonly #json: JsonObject;
  readonly #where: string;
  readonly #path: string;

  /**
   * @param known the fields that there are
   * @throws TaskError for a value that is no object, or a field that is not known
   */
  constructor(value: unknown, where: string, known: readonly string[], path = "") {
    this.#where = where;
    this.#path = path;
    if (!isJsonObject(value))
      throw new TaskError(`${where}: ${path === "" ? "a task" : `"${path}"`} must be an object`);
    const unknown = Object.keys(value).find((name) => !known.includes(name));
    if (unknown !== undefined)
      throw new TaskError(`${where}: there is no field "${this.#name(unknown)}"${didYouMean(unknown, known)}`);
    this.#json = value;
  }

  #name(field: string): string {
    return this.#path === "" ? field : `${this.#path}.${field}`;
  }

  /** An error about a field. */
  wrong(field: string, wanted: string): TaskError {
    const value = this.raw(field);
    const found = value === undefined ? "it is missing" : `not ${JSON.stringify(value).slice(0, 80)}`;
    return new TaskError(`${this.#where}: "${this.#name(field)}" must be ${wanted}; ${found}`);
  }

  has(field: string): boolean {
    return Object.hasOwn(this.#json, field);
  }

  raw(field: string): unknown {
    return this.has(field) ? this.#json[field] : undefined;
  }

  #checked<T>(field: string, fallback: T | undefined, wanted: string, holds: (value: unknown) => boolean): T {
    if (!this.has(field) && fallback !== undefined) return fallback;
    const value = this.raw(field);
    if (!holds(value)) throw this.wrong(field, wanted);
    return value as T;
  }

  text(field: string, fallback?: string): string {
    return this.#checked(field, fallback, "text", (value) => typeof value === "string");
  }

  flag(field: string, fallback: boolean): boolean {
    return this.#checked(field, fallback, "true or false", (value) => typeof value === "boolean");
  }

  whole(field: string, least: number, fallback?: number): number {
    const holds = (value: unknown): boolean => Number.isSafeInteger(value) && (value as number) >= least;
    return this.#checked(field, fallback, `a whole number from ${least}`, holds);
  }

  number(field: string, least: number, fallback?: number): number {
    const holds = (value: unknown): boolean => typeof value === "number" && value >= least;
    return this.#checked(field, fallback, `a number from ${least}`, holds);
  }

  choice<T extends string>(field: string, choices: readonly T[], fallback?: T): T {
    return this.#checked(field, fallback, `one of ${choices.join(", ")}`, (value) => choices.includes(value as T));
  }

  texts(field: string, fallback?: readonly string[]): readonly string[] {
    const holds = (value: unknown): boolean => Array.isArray(value) && value.every((item) => typeof item === "string");
    return this.#checked(field, fallback, "a list of texts", holds);
  }

  /** An inner object, where it is given. */
  inner(field: string, known: readonly string[]): Fields | undefined {
    return this.has(field) ? new Fields(this.raw(field), this.#where, known, this.#name(field)) : undefined;
  }

  /** The inner objects of a list. */
  list(field: string, known: readonly string[]): Fields[] {
    const value = this.raw(field) ?? [];
    if (!Array.isArray(value)) throw this.wrong(field, "a list of objects");
    return value.map((item, i) => new Fields(item, this.#where, known, this.#name(`${field}.${i}`)));
  }
}
