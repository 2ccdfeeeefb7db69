import { ArgumentError } from "../../tensor/errors.ts";
import { ggmlTypes } from "./types.ts";

/**
 * Element types for a model quantized to `type`: tables as asked for where their rows are whole blocks, else `Q8_0`,
 * else `F16`; vectors and tables of positions, which cost
 * little and matter much, as `F32`. K-quants keep the embedding table and the head in
 * `Q6_K`, as llama.cpp's do.
 * @throws ArgumentError for a type that GGUF does not know
 */
export function ggufTypes(type: string): (tensor: { name: string; shape: readonly number[] }) => string {
  if (!ggmlTypes.has(type)) throw new ArgumentError(`GGUF has no element type called ${type}`);
  return ({ name, shape }) => {
    if (shape.length < 2 || name.includes("embed_positions")) return "F32";
    const isVocabulary = /embed_tokens|lm_head/.test(name);
    const wanted = [isVocabulary && type.endsWith("_K") ? "Q6_K" : type, "Q8_0"];
    return wanted.find((candidate) => shape.at(-1)! % ggmlTypes.get(candidate)!.block === 0) ?? "F16";
  };
}
