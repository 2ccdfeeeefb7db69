import type { BlockFormat } from "../../nn/index.ts";
import { ArgumentError } from "../../tensor/index.ts";
import { clipped } from "./clipped.ts";
import { gptq } from "./gptq.ts";
import { half } from "./half.ts";
import { magnitude } from "./magnitude.ts";
import type { MatrixMethod } from "./method.ts";
import { type BlockOptions, nearest } from "./nearest.ts";
import type { PlanOptions } from "./plan.ts";
import { awqPreparation, type Preparation, rotationPreparation, smoothPreparation } from "./preparation.ts";
import { onlineHadamard } from "./rotation.ts";
import { roundedInputs } from "./rounded-inputs.ts";
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

/** How they can be. Of `methodsFor` a target the first is its default. */
export const methodNames = [
  "gptq",
  "awq",
  "smoothquant",
  "quarot",
  "nearest",
  "sparsegpt",
  "wanda",
  "magnitude",
  "svd-llm",
  "svd",
] as const;
export type MethodName = (typeof methodNames)[number];

/** What becomes of the inputs of the layers' matrices at run time. */
export const activationForms = ["keep", "8bit", "4bit"] as const;
export type ActivationForm = (typeof activationForms)[number];

/** What a user says of a compression. */
export interface Recipe {
  readonly to: Target;
  readonly method?: MethodName | undefined;
  /** Whether there is text to calibrate on; without it the default is a method that needs none. Default true. */
  readonly calibrated?: boolean | undefined;
  /** Neighbours that share a scale. Default 32, of SmoothQuant the whole row. */
  readonly block?: number | "channel" | undefined;
  /** A zero point for each block. Default: where it pays, at 3 and 2 bits. */
  readonly asymmetric?: boolean | undefined;
  /** Of the weights (sparse) or of their number (lowrank), the share that is kept. Default 0.5. */
  readonly keep?: number | undefined;
  /**
   * Default: as the method's paper has it, 8 bits for SmoothQuant, 4 for QuaRot (8 with weights of 8 bits), and for all
   * others `keep`.
   */
  readonly activations?: ActivationForm | undefined;
}

/** What a recipe comes to. */
export interface Procedure extends Required<Pick<PlanOptions, "except">> {
  /** What happens to the model before its matrices are compressed one by one; null: nothing. */
  readonly preparation: Preparation | null;
  /** Method of the layers' matrices, besides exceptions by name as `planFor` takes them. */
  readonly layers: MatrixMethod;
}

/** The methods that go with a target, the best first, and those that need no text. */
export function methodsFor(to: Target): { readonly all: readonly MethodName[]; readonly plain: readonly MethodName[] } {
  if (to === "f16" || to === "bf16") return { all: ["nearest"], plain: ["nearest"] };
  if (to === "sparse" || to === "2:4") return { all: ["sparsegpt", "wanda", "magnitude"], plain: ["magnitude"] };
  if (to === "lowrank") return { all: ["svd-llm", "svd"], plain: ["svd"] };
  if (to === "ternary" || to === "1bit") return { all: ["gptq", "nearest"], plain: ["nearest"] };
  const smooth = to === "8bit" ? (["smoothquant"] as const) : [];
  return { all: ["gptq", "awq", ...smooth, "quarot", "nearest"], plain: ["nearest", "quarot"] };
}

/** A recipe with nothing left open. */
interface Settled {
  readonly to: Target;
  readonly method: MethodName;
  readonly calibrated: boolean;
  /** How blocks are laid out; null where there are none. */
  readonly grid: BlockOptions | null;
  readonly keep: number;
  readonly activations: ActivationForm;
}

/** @throws ArgumentError for what does not go together */
function settled({ to, method, calibrated = true, keep = 0.5, ...recipe }: Recipe): Settled {
  const { all, plain } = methodsFor(to);
  const name = method ?? (calibrated ? all : plain)[0]!;
  if (!all.includes(name))
    throw new ArgumentError(
      `${to} does not go with ${name}, but with ${all.join(", ")}${name === "smoothquant" ? "; smoothquant makes 8-bit activations and 8-bit weights usable together: give --to 8bit" : ""}`,
    );
  if (!calibrated && !plain.includes(name))
    throw new ArgumentError(`${name} calibrates on text like what the model will read; there is none`);
  if (!(keep > 0 && keep < 1)) throw new ArgumentError(`the share to keep lies between 0 and 1, not at ${keep}`);
  const activations = recipe.activations ?? usualActivations(name, to);
  if (activations !== "keep" && !Object.hasOwn(blocks, to))
    throw new ArgumentError(
      `activations are rounded for products with weights of few bits; ${to} weights take them as they are`,
    );
  if (name === "smoothquant" && activations === "4bit")
    throw new ArgumentError("smoothquant is for 8-bit activations; quarot makes 4-bit ones usable");
  const block = recipe.block ?? (name === "smoothquant" ? "channel" : 32);
  const grid = Object.hasOwn(blocks, to) ? gridOf(to, block, recipe.asymmetric, activations !== "keep") : null;
  return { to, method: name, calibrated, grid, keep, activations };
}

function usualActivations(method: MethodName, to: Target): ActivationForm {
  if (method === "smoothquant") return "8bit";
  if (method === "quarot") return to === "8bit" ? "8bit" : "4bit";
  return "keep";
}

function gridOf(to: Target, block: number | "channel", asymmetric: boolean | undefined, exact: boolean): BlockOptions {
  const format = blocks[to]!;
  if (asymmetric && (format === "ternary" || format === "binary"))
    throw new ArgumentError(`${to} weights are symmetric; leave out the zero points`);
  const few = format === "int3" || format === "int2";
  return { format, block, symmetric: !(asymmetric ?? few), scales: "f16", ...(exact && { exact }) };
}

/**
 * The method for a matrix of a recipe; of AWQ, SmoothQuant and QuaRot, how the prepared model is rounded.
 * @throws ArgumentError for what does not go together
 */
export function methodOf(recipe: Recipe): MatrixMethod {
  const { to, method, calibrated, grid, keep, activations } = settled(recipe);
  const pattern = to === "2:4" ? { keep: 2, of: 4 } : { sparsity: 1 - keep };
  switch (method) {
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
  }
  if (!grid) return half(to as "f16" | "bf16");
  const rounding = roundingOf(method, calibrated, grid);
  return activations === "keep"
    ? rounding
    : roundedInputs(rounding, { bits: activations === "8bit" ? 8 : 4, per: "token" });
}

function roundingOf(method: MethodName, calibrated: boolean, grid: BlockOptions): MatrixMethod {
  if (method === "gptq" || (method === "quarot" && calibrated)) return gptq(grid);
  // AWQ has chosen its scales for this very grid.
  if (method === "awq") return clipped(grid);
  // Looking for the best scale repays rounding to nearest; GPTQ fits its scales on the way.
  return nearest({ ...grid, search: true });
}

/** Matrices whose inputs rotating the residual stream does not even out. */
const turnedAtRunTime = ["*.*.*.mlp.down_proj.weight", "*.*.*.self_attn.o_proj.weight"];

/** All that a recipe says to do. @throws ArgumentError for what does not go together */
export function procedureOf(recipe: Recipe): Procedure {
  const { method, grid, activations } = settled(recipe);
  const rounding = methodOf(recipe);
  switch (method) {
    case "awq":
      return after(awqPreparation(grid!), rounding);
    case "smoothquant":
      return after(smoothPreparation(), rounding);
    case "quarot": {
      const turned = after(rotationPreparation, rounding);
      if (activations === "keep") return turned;
      const online = onlineHadamard(turned.layers);
      return { ...turned, except: Object.fromEntries(turnedAtRunTime.map((pattern) => [pattern, online])) };
    }
    default:
      return { preparation: null, layers: rounding, except: {} };
  }
}

/** Matrices are told apart by what was done before, in reports and where a run is resumed. */
function after(preparation: Preparation, method: MatrixMethod): Procedure {
  const layers = { ...method, name: `${preparation.name}, ${method.name}` };
  return { preparation, layers, except: {} };
}

/** The same form of weights by a method that needs no text: for a quick look at what will come out. */
export function withoutText(recipe: Recipe): Recipe {
  const { to, method, activations, grid } = settled(recipe);
  const { plain } = methodsFor(to);
  return {
    ...recipe,
    method: plain.includes(method) ? method : plain[0]!,
    calibrated: false,
    activations,
    ...(grid && { block: grid.block }),
  };
}
