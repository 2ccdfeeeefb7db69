import type { JsonObject } from "../../formats/json.ts";
import { ModelError } from "../errors.ts";
import { type DecoderConfig, decoderConfig, NO_ATTENTION, slidingWindow } from "./config.ts";

/**
 * The `config.json` of a decoder that was made from another by pruning: the old one with the new sizes and kinds of
 * attention. Layers without attention are called `no_attention` in `layer_types`, which only pare understands.
 * @param json what `config` was read from before it was changed
 * @throws ModelError where such a file cannot say what `config` does: GPT-2, and other widths of Gemma, whose embeddings
 *   are scaled by their width
 */
export function resizedConfigJson(json: JsonObject, config: DecoderConfig): JsonObject {
  const { window } = config;
  const size = slidingWindow(config);
  const plain = window.every((own) => own === null);
  const types = window.map((own) => (own === null ? "full_attention" : own === 0 ? NO_ATTENTION : "sliding_attention"));
  const { layer_types: _, sliding_window: __, sliding_window_pattern: ___, ...kept } = json;
  const resized: JsonObject = {
    ...kept,
    hidden_size: config.dim,
    intermediate_size: config.ffn,
    num_hidden_layers: config.layers,
    head_dim: config.headDim,
    ...(!plain && { layer_types: types }),
    ...(size !== null && { sliding_window: size }),
  };
  const read = decoderConfig(resized);
  const differs = (Object.keys(config) as (keyof DecoderConfig)[]).find(
    (key) => JSON.stringify(read[key]) !== JSON.stringify(config[key]),
  );
  if (differs !== undefined)
    throw new ModelError(
      `the config.json of a ${config.type} cannot say that "${differs}" is ${JSON.stringify(config[differs])}: it would be read as ${JSON.stringify(read[differs])}`,
    );
  return resized;
}
