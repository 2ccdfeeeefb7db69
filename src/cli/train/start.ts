import { readFile } from "node:fs/promises";
import { Tokenizer, trainBpe } from "../../formats/index.ts";
import { isJsonObject, type JsonObject } from "../../formats/json.ts";
import { decoderConfig, initDecoder, requireTokenizer, type Weights } from "../../models/index.ts";
import { embeddedModel, openModel } from "../../models/node.ts";
import { Rng } from "../../tensor/index.ts";
import { UsageError } from "../errors.ts";

/** What training begins with. */
export interface Beginning {
  readonly json: JsonObject;
  readonly weights: Weights;
  readonly tokenizer: Tokenizer;
  /** Folder or file that it came from; null where it is new. */
  readonly source: string | null;
}

/** An existing model. */
export async function existing(model: string | undefined): Promise<Beginning> {
  await using opened = await openModel(model ?? embeddedModel);
  return { json: opened.json, weights: opened.weights, tokenizer: requireTokenizer(opened), source: opened.source };
}

const END = "<|endoftext|>";
const WIDTH_OF_HEAD = 64;

/**
 * A new model of the Llama family with random weights: a shape such as `6x256` (layers and width), or a `config.json`, and
 * a vocabulary learned from the text that it is to read.
 * @throws UsageError for what is neither
 */
export async function newModel(
  shape: string,
  { text, vocab, seed }: { readonly text: string; readonly vocab: number; readonly seed: number },
): Promise<Beginning> {
  const stories = text.split(END);
  const tokenizer = Tokenizer.fromFiles({
    tokenizerJson: trainBpe(stories, { vocabSize: vocab, specialTokens: [END] }),
    tokenizerConfig: {
      tokenizer_class: "PreTrainedTokenizerFast",
      bos_token: END,
      eos_token: END,
      clean_up_tokenization_spaces: false,
    },
  });
  const given = await configOf(shape);
  const end = tokenizer.tokenToId(END)!;
  const json = { ...given, vocab_size: tokenizer.vocabSize, bos_token_id: end, eos_token_id: end };
  const weights = initDecoder(decoderConfig(json), new Rng(seed).fork("new model"));
  return { json, weights, tokenizer, source: null };
}

async function configOf(shape: string): Promise<JsonObject> {
  const match = /^(\d+)x(\d+)$/.exec(shape);
  if (!match) {
    if (!shape.endsWith(".json"))
      throw new UsageError(`--new takes layers x width, such as 6x256, or a config.json, not "${shape}"`);
    const json: unknown = await readFile(shape, "utf8").then(JSON.parse, (error: unknown) => {
      throw new UsageError(`${shape} cannot be read: ${error instanceof Error ? error.message : error}`);
    });
    if (!isJsonObject(json)) throw new UsageError(`${shape} is no configuration: it holds no record`);
    return json;
  }
  const [layers, width] = [Number(match[1]), Number(match[2])];
  if (layers < 1 || width < 32 || width % 32 !== 0)
    throw new UsageError(`--new ${shape}: a model has at least one layer, and a width that is a multiple of 32`);
  const heads = Math.max(1, Math.round(width / WIDTH_OF_HEAD));
  const size = width % (2 * heads) === 0 ? width / heads : 32;
  return {
    architectures: ["LlamaForCausalLM"],
    model_type: "llama",
    hidden_size: width,
    intermediate_size: 32 * Math.round((2.5 * width) / 32),
    num_hidden_layers: layers,
    num_attention_heads: width / size,
    num_key_value_heads: width / size,
    head_dim: size,
    max_position_embeddings: 512,
    rms_norm_eps: 1e-5,
    rope_theta: 10_000,
    hidden_act: "silu",
    tie_word_embeddings: true,
    attention_bias: false,
  };
}
