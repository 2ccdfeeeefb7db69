import type { PendingTensor } from "../formats/index.ts";
import { BlockWeight, Dense, HalfWeight, type PackedTensors, packedShapes, toPackQuantized } from "../nn/index.ts";
import { HostTensor, type Leaf } from "../tensor/index.ts";
import { decoderConfig } from "./decoder/config.ts";
import { checkWeights } from "./decoder/weights.ts";
import { type SavedModel, writeModel } from "./load.node.ts";
import { asStored, numbersIn, outlinesOf, type StoredWeight } from "./load-stored.ts";
import { checkPacked } from "./pack-scheme.ts";

/**
 * Saves a model in the `pack-quantized` format of compressed-tensors, which vLLM and transformers run, and `openModel`
 * reads. The linear layers must be int4 or int8 blocks of one layout, or dense (in any precision); the embedding is dense.
 * Codes, scales and zero points are kept bit by bit; whether products round activations (`exact`) is not in the format.
 * @throws ModelError naming the first weight that the format has no place for; FileError
 */
export async function saveCompressedTensors(folder: string, model: SavedModel): Promise<void> {
  const stored = asStored(model.weights);
  const config = decoderConfig(model.json);
  const outlines = outlinesOf(stored);
  checkWeights(config, outlines);
  const quantization = checkPacked(config, outlines);
  const tensors = Array.from(stored).flatMap(([name, weight]) =>
    weight.outline instanceof BlockWeight ? packed(name, weight, weight.outline) : [dense(name, weight)],
  );
  await writeModel(folder, model, tensors, { config: { quantization_config: quantization } });
}

function dense(name: string, stored: StoredWeight): PendingTensor {
  const { outline } = stored;
  const leaf = (outline instanceof Dense || outline instanceof HalfWeight ? outline.values : outline) as Leaf;
  return { name, dtype: leaf.dtype, shape: leaf.shape as readonly number[], load: () => numbersIn(stored, leaf) };
}

/** The tensors of a packed matrix; what has to be packed is so when its turn comes. */
function packed(name: string, stored: StoredWeight, outline: BlockWeight): PendingTensor[] {
  const module = name.replace(/\.weight$/, "");
  const load = async (part: keyof PackedTensors): Promise<HostTensor> => {
    if (part === "weight_shape") return HostTensor.from([...outline.shape], { dtype: "i64" });
    if (part === "weight_scale") return await numbersIn(stored, outline.scales);
    return toPackQuantized((await stored.read()) as BlockWeight)[part]!;
  };
  return Object.entries(packedShapes(outline)).map(([part, { dtype, shape }]) => ({
    name: `${module}.${part}`,
    dtype,
    shape,
    load: () => load(part as keyof PackedTensors),
  }));
}
