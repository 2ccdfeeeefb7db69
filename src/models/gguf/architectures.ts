import { joinRotaryPairs, rotaryHeads, splitRotaryPairs } from "../../formats/rotary.ts";
import { HostTensor } from "../../tensor/index.ts";
import type { DecoderConfig } from "../decoder/config.ts";
import { ModelError } from "../errors.ts";

/** An architecture as llama.cpp knows it. */
export interface GgufArchitecture {
  /** `general.architecture`, which the keys of its metadata begin with. */
  readonly name: string;
  /** The `model_type` of Hugging Face's that a file of it is read as. */
  readonly type: string;
  /** Rotary positions turn neighbours 2i and 2i + 1 instead of the two halves of a head. */
  readonly neighbours: boolean;
  /** Queries, keys and values are projected by one matrix, its rows below each other in this order. */
  readonly fused?: true;
  /** Every layer has a window but each `n`th, counted from 1, where llama.cpp has windows. */
  readonly windowPeriod?: number;
  /** Number of layers of the one size whose scores are scaled by the width of a head as if it were dim / heads. */
  readonly layersOfOddScale?: number;
}

const architectures: readonly GgufArchitecture[] = [
  { name: "llama", type: "llama", neighbours: true },
  { name: "qwen2", type: "qwen2", neighbours: false },
  { name: "qwen3", type: "qwen3", neighbours: false },
  { name: "gemma2", type: "gemma2", neighbours: false, windowPeriod: 2, layersOfOddScale: 46 },
  { name: "gemma3", type: "gemma3_text", neighbours: false, windowPeriod: 6, layersOfOddScale: 62 },
  { name: "gpt2", type: "gpt2", neighbours: false, fused: true },
];

/** The architecture that llama.cpp runs models of a `model_type` as. @throws ModelError where it has none */
export function architectureFor(type: string): GgufArchitecture {
  // What sets Mistral's first models apart from Llamas is the window alone.
  const found = architectures.find((known) => known.type === (type === "mistral" ? "llama" : type));
  if (!found) throw new ModelError(`models of type "${type}" cannot be written to GGUF`);
  return found;
}

/** The architecture called `name`, if pare knows it. @throws ModelError naming those that it does */
export function architectureCalled(name: string, file: string): GgufArchitecture {
  const found = architectures.find((known) => known.name === name);
  if (found) return found;
  const names = architectures.map((known) => known.name).join(", ");
  throw new ModelError(`${file}: its architecture is ${JSON.stringify(name)}; supported are ${names}`);
}

/** What attention scores are multiplied by in llama.cpp, which does not read it from the file. */
export function scaleOf({ layersOfOddScale }: GgufArchitecture, { layers, dim, heads, headDim }: ScaleSizes): number {
  return 1 / Math.sqrt(layers === layersOfOddScale ? dim / heads : headDim);
}

type ScaleSizes = Pick<DecoderConfig, "layers" | "dim" | "heads" | "headDim">;

/** Whether the layer has a window, where the model has windows. */
export function hasWindow({ windowPeriod }: GgufArchitecture, layer: number): boolean {
  return windowPeriod !== undefined && (layer + 1) % windowPeriod !== 0;
}

/** How numbers of a tensor with Hugging Face's `name` differ in GGUF files; undefined where they do not. */
export function conversionOf(
  { neighbours }: GgufArchitecture,
  name: string,
  { heads, kvHeads, normPlusOne }: DecoderConfig,
): Record<"toGgml" | "fromGgml", (tensor: HostTensor) => HostTensor> | undefined {
  const turned = neighbours ? rotaryHeads(name, { num_attention_heads: heads, num_key_value_heads: kvHeads }) : 0;
  if (turned > 0) {
    return {
      toGgml: (tensor) => joinRotaryPairs(tensor, turned),
      fromGgml: (tensor) => splitRotaryPairs(tensor, turned),
    };
  }
  // llama.cpp's gains are what the numbers are multiplied by.
  if (normPlusOne && name.endsWith("norm.weight")) return { toGgml: plus(1), fromGgml: plus(-1) };
  return undefined;
}

const plus =
  (addend: number) =>
  (tensor: HostTensor): HostTensor => {
    const { shape, data } = tensor.cast("f32");
    return new HostTensor(
      "f32",
      shape,
      (data as Float32Array).map((value) => value + addend),
    );
  };
