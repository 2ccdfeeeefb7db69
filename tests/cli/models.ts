import type { TextModel } from "../../src/cli/model.ts";
import { Tokenizer } from "../../src/formats/index.ts";
import { readModelFolder } from "../../src/formats/node.ts";
import { DecoderSession } from "../../src/generate/index.ts";
import { embeddedModel } from "../../src/models/node.ts";
import { tinyModel } from "../generate/models.ts";

/** A template that shows in plain text what it was given. */
export const chatTemplate =
  "{% for m in messages %}[{{ m.role }}] {{ m.content }}\n{% endfor %}{% if add_generation_prompt %}[assistant] {% endif %}";

/** The shape of a small model with the embedded one's vocabulary. */
export const tinyShape = {
  vocab_size: 4096,
  hidden_size: 16,
  intermediate_size: 16,
  num_hidden_layers: 1,
  num_attention_heads: 2,
  num_key_value_heads: 1,
  max_position_embeddings: 6000,
};

/** A small model with random weights and the embedded one's tokens, which no token ends unless `changes` name one. */
export async function tinyTextModel(
  changes: Partial<TextModel> & { readonly chats?: boolean } = {},
): Promise<TextModel> {
  const { config, weights } = tinyModel(tinyShape);
  const session = await DecoderSession.open(config, weights, { threads: 1 });
  const { tokenizerJson, tokenizerConfig } = await readModelFolder(embeddedModel);
  const template = changes.chats ? { chatTemplate } : {};
  return {
    name: "tiny",
    embedded: false,
    tokenizer: Tokenizer.fromFiles({ tokenizerJson, tokenizerConfig, ...template }),
    session,
    eosIds: [],
    advice: {},
    [Symbol.asyncDispose]: () => session.dispose(),
    ...changes,
  };
}
