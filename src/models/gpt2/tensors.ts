import { FormatError, type TensorFile } from "../../formats/index.ts";
import { TensorView, type ViewedTensor } from "../../formats/tensor-view.ts";
import type { HostTensor } from "../../tensor/index.ts";
import { joinedRows, partOfRows, transposed } from "../host-matrices.ts";

/*
 * Hugging Face's files of GPT-2 have names of their own, keep matrices as `[in, out]`, and queries, keys and values in
 * one. In memory a GPT-2 has the names and shapes of later decoders, so that whatever works on their weights works on it.
 */

const modules: ReadonlyMap<string, string> = new Map([
  ["ln_1", "input_layernorm"],
  ["attn.c_proj", "self_attn.o_proj"],
  ["ln_2", "post_attention_layernorm"],
  ["mlp.c_fc", "mlp.up_proj"],
  ["mlp.c_proj", "mlp.down_proj"],
]);

const outside: ReadonlyMap<string, string> = new Map([
  ["wte.weight", "model.embed_tokens.weight"],
  ["wpe.weight", "model.embed_positions.weight"],
  ["ln_f.weight", "model.norm.weight"],
  ["ln_f.bias", "model.norm.bias"],
  ["lm_head.weight", "lm_head.weight"],
]);

const fused = "attn.c_attn";
const projections = ["q", "k", "v"];

/**
 * The tensors of a file of GPT-2 under a decoder's names; a file that has those already, as it is. Masks, which older
 * files keep, are left out.
 * @throws FormatError naming a tensor that no GPT-2 has
 */
export function gpt2Tensors(file: TensorFile): TensorFile {
  if (file.tensors.has("model.embed_tokens.weight")) return file;
  const views = new Map<string, ViewedTensor>();
  for (const { name: from, shape } of file.tensors.values()) {
    const name = from.replace(/^transformer\./, "");
    const [, layer, module, part] = /^h\.(\d+)\.(.+)\.(weight|bias)$/.exec(name) ?? [];
    const inLayer = `model.layers.${layer}`;
    const found = modules.get(module ?? "");
    if (module === fused) {
      const [width, ...rest] = shape.toReversed();
      const third = [width! / projections.length, ...rest];
      for (const [i, projection] of projections.entries()) {
        const convert = (tensor: HostTensor): HostTensor => partOfRows(transposed(tensor), i, projections.length);
        views.set(`${inLayer}.self_attn.${projection}_proj.${part}`, { from, convert, shape: third });
      }
    } else if (found) {
      views.set(`${inLayer}.${found}.${part}`, { from, convert: transposed, shape: shape.toReversed() });
    } else if (outside.has(name)) {
      views.set(outside.get(name)!, { from });
    } else if (!/^h\.\d+\.attn\.(bias|masked_bias)$/.test(name)) {
      throw new FormatError(`${file.name}: no GPT-2 has a tensor called "${from}"`);
    }
  }
  return new TensorView(file, views);
}

/** The inverse: a GPT-2's tensors as Hugging Face's files have them. */
export function gpt2Stored(tensors: ReadonlyMap<string, HostTensor>): Map<string, HostTensor> {
  const stored = new Map<string, HostTensor>();
  const names = new Map(Array.from(outside, ([from, name]) => [name, from]));
  const stems = new Map(Array.from(modules, ([from, name]) => [name, from]));
  for (const [name, tensor] of tensors) {
    const [, layer, module, part] = /^model\.layers\.(\d+)\.(.+)\.(weight|bias)$/.exec(name) ?? [];
    if (!module) stored.set(name.startsWith("lm_head") ? name : `transformer.${names.get(name)!}`, tensor);
    else if (stems.has(module)) stored.set(`transformer.h.${layer}.${stems.get(module)}.${part}`, transposed(tensor));
    else if (module === "self_attn.q_proj") {
      const all = projections.map((p) => tensors.get(`model.layers.${layer}.self_attn.${p}_proj.${part}`)!);
      stored.set(`transformer.h.${layer}.${fused}.${part}`, transposed(joinedRows(all)));
    }
  }
  return stored;
}
