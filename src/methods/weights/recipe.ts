import type { BlockFormat } from "../../nn/index.ts";
import { ArgumentError } from "../../tensor/index.ts";
import { gptq } from "./gptq.ts";
import { half } from "./half.ts";
import { magnitude } from "./magnitude.ts";
import type { MatrixMethod } from "./method.ts";
import { type BlockOptions, nearest } from "./nearest.ts";
import { sparseGpt } from "./sparsegpt.ts";
import { svd, whitenedSvd } from "./svd.ts";
import { wanda } from "./wanda.ts";

const blocks: Readonly<Record<string, BlockFormat>> = {
  "8bit": "int8",
  "4bit": "int4",
  "3bit": "int3",
  "2bit": "int2",
  ternary: "ternary",
  "1bit": "binary",
};

/** What weights can be compressed to. */
export const targets = [
  "f16",
  "bf16",
  "8bit",
  "4bit",
  "3bit",
  "2bit",
  "ternary",
  "1bit",
  "sparse",
  "2:4",
  "lowrank",
] as const;
export type Target = (typeof targets)[number];

/** How they can be; the first that goes with a target is its default. */
export const methodNames = ["gptq", "nearest", "sparsegpt", "wanda", "magnitude", "svd-llm", "svd"] as const;
export type MethodName = (typeof methodNames)[number];

/** What a user says of a compression. */
export interface Recipe {
  readonly to: Target;
  readonly method?: MethodName | undefined;
  /** Whether there is text to calibrate on; without it the default is a method that needs none. Default true. */
  readonly calibrated?: boolean | undefined;
  /** Neighbours that share a scale. Default 32. */
  readonly block?: number | "channel" | undefined;
  /** A zero point for each block. Default: where it pays, at 3 and 2 bits. */
  readonly asymmetric?: boolean | undefined;
  /** Of the weights (sparse) or of their number (lowrank), the share that is kept. Default 0.5. */
  readonly keep?: number | undefined;
}

/** The methods that go with a target, the best first, and those that need no text. */
export function methodsFor(to: Target): { readonly all: readonly MethodName[]; readonly plain: readonly MethodName[] } {
  if (to === "f16" || to === "bf16") return { all: ["nearest"], plain: ["nearest"] };
  if (to === "sparse" || to === "2:4") return { all: ["sparsegpt", "wanda", "magnitude"], plain: ["magnitude"] };
  if (to === "lowrank") return { all: ["svd-llm", "svd"], plain: ["svd"] };
  return { all: ["gptq", "nearest"], plain: ["nearest"] };
}

/** The method for a recipe. @throws ArgumentError for what does not go together */
export function methodOf({ to, method, calibrated = true, block = 32, asymmetric, keep = 0.5 }: Recipe): MatrixMethod {
  const { all, plain } = methodsFor(to);
  const name = method ?? (calibrated ? all : plain)[0]!;
  if (!all.includes(name)) throw new ArgumentError(`${to} does not go with ${name}, but with ${all.join(", ")}`);
  if (!calibrated && !plain.includes(name))
    throw new ArgumentError(`${name} calibrates on text like what the model will read; there is none`);
  if (!(keep > 0 && keep < 1)) throw new ArgumentError(`the share to keep lies between 0 and 1, not at ${keep}`);
  const pattern = to === "2:4" ? { keep: 2, of: 4 } : { sparsity: 1 - keep };
  switch (name) {
    case "sparsegpt":
      return sparseGpt(pattern);
    case "wanda":
      return wanda(pattern);
    case "magnitude":
      return magnitude(pattern);
    case "svd-llm":
      return whitenedSvd({ ratio: keep });
    case "svd":
      return svd({ ratio: keep });
    default:
      return to === "f16" || to === "bf16" ? half(to) : rounded(to, name, block, asymmetric);
  }
}

function rounded(to: Target, name: "gptq" | "nearest", block: number | "channel", asymmetric?: boolean): MatrixMethod {
  const format = blocks[to]!;
  if (asymmetric && (format === "ternary" || format === "binary"))
    throw new ArgumentError(`${to} weights are symmetric; leave out the zero points`);
  const few = format === "int3" || format === "int2";
  const options: BlockOptions = { format, block, symmetric: !(asymmetric ?? few), scales: "f16" };
  // Looking for the best scale repays rounding to nearest; GPTQ fits its scales on the way.
  return name === "gptq" ? gptq(options) : nearest({ ...options, search: true });
}
