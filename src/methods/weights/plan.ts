import { type DecoderConfig, decoderShapes } from "../../models/index.ts";
import { ArgumentError } from "../../tensor/index.ts";
import type { MatrixMethod } from "./method.ts";

/** Which method compresses which matrix; null leaves it as it is. */
export type Plan = (name: string) => MatrixMethod | null;

export interface PlanOptions {
  /** Method of the layers' matrices. */
  readonly layers: MatrixMethod | null;
  /** Method of the embedding, which a tied head shares. Default: left as it is. */
  readonly embedding?: MatrixMethod | null;
  /** Method of a head with a matrix of its own. Default: left as it is. */
  readonly head?: MatrixMethod | null;
  /**
   * Exceptions by name; `*` stands for any stretch without a dot: `model.layers.0.*.*.weight`, `*.*.*.mlp.down_proj.weight`.
   * The last that fits counts.
   */
  readonly except?: Readonly<Record<string, MatrixMethod | null>>;
}

/**
 * A plan by kinds of matrices, with exceptions.
 * @throws ArgumentError where an exception fits no matrix of the model: a misspelt one would otherwise do nothing
 */
export function planFor(
  config: DecoderConfig,
  { layers, embedding = null, head = null, except = {} }: PlanOptions,
): Plan {
  const names = matrixNames(config);
  const methods = new Map(
    names.map((name) => [
      name,
      name === "model.embed_tokens.weight" ? embedding : name === "lm_head.weight" ? head : layers,
    ]),
  );
  for (const [pattern, method] of Object.entries(except)) {
    const literal = pattern.split("*").map((part) => part.replace(/[.\\+?^${}()|[\]]/g, "\\$&"));
    const fits = new RegExp(`^${literal.join("[^.]*")}$`);
    const fitting = names.filter((name) => fits.test(name));
    if (fitting.length === 0)
      throw new ArgumentError(`"${pattern}" fits no matrix of the model; they are named like ${names.slice(1, 3)}`);
    for (const name of fitting) methods.set(name, method);
  }
  return (name) => methods.get(name) ?? null;
}

/** The names of all matrices of a model, the embedding first, in the order of the forward pass. */
export function matrixNames(config: DecoderConfig): string[] {
  return [...decoderShapes(config)].flatMap(([name, shape]) => (shape.length === 2 ? [name] : []));
}
