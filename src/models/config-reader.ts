import { ModelError } from "./errors.ts";

/** Far above every published model; what follows allocates per layer. */
const MAX_LAYERS = 10_000;

export type Json = Readonly<Record<string, unknown>>;

/** Typed access to a `config.json` that may hold anything. */
export class ConfigReader {
  readonly #json: Json;
  constructor(json: Json) {
    this.#json = json;
  }

  raw(name: string): unknown {
    return this.#json[name] ?? undefined;
  }

  number(name: string, fallback?: number): number {
    const value = this.raw(name) ?? fallback;
    if (value === undefined) throw new ModelError(`config.json lacks "${name}"`);
    if (typeof value !== "number" || !Number.isFinite(value))
      throw new ModelError(`config.json: "${name}" must be a number, not ${JSON.stringify(value)}`);
    return value;
  }

  size(name: string, fallback?: number): number {
    const value = this.number(name, fallback);
    if (!Number.isSafeInteger(value) || value < 1 || value > 2 ** 31)
      throw new ModelError(`config.json: "${name}" must be a whole number from 1, not ${value}`);
    return value;
  }

  layers(name: string): number {
    const layers = this.size(name);
    if (layers > MAX_LAYERS) throw new ModelError(`config.json: ${layers} layers are more than any model has`);
    return layers;
  }

  flag(name: string, fallback: boolean): boolean {
    const value = this.raw(name) ?? fallback;
    if (typeof value !== "boolean")
      throw new ModelError(`config.json: "${name}" must be true or false, not ${JSON.stringify(value)}`);
    return value;
  }

  text(name: string, fallback: string): string {
    const value = this.raw(name) ?? fallback;
    if (typeof value !== "string")
      throw new ModelError(`config.json: "${name}" must be text, not ${JSON.stringify(value)}`);
    return value;
  }

  optional(name: string): number | null {
    return this.raw(name) === undefined ? null : this.number(name);
  }
}
