import { memorySource } from "./bytes.ts";
import { FileError, FormatError, LimitError } from "./errors.ts";
import { folderLimits } from "./hf-limits.ts";
import { decodeUtf8, isJsonObject, type JsonObject, parseJson } from "./json.ts";
import { safetensorsLimits } from "./limits.ts";
import { readShardIndex } from "./safetensors-shards.ts";

/** The files of a model, wherever they lie: a local folder, files that a page was given. */
export interface ModelFiles {
  /** What error messages call them: the path of the folder. */
  readonly name: string;
  /** All files, by path within the folder with `/` between its parts. */
  list(): Promise<readonly { readonly path: string; readonly bytes: number }[]>;
  /** The bytes of a listed file. @throws LimitError before reading when it has more than `limit` bytes; FileError */
  read(path: string, limit: number): Promise<Uint8Array>;
}

/** A model as Hugging Face lays it out. */
export interface ModelFolder {
  readonly name: string;
  /** config.json; only folders of GGUF or ONNX files do without. */
  readonly config: JsonObject | undefined;
  /** generation_config.json. */
  readonly generationConfig: JsonObject | undefined;
  /** tokenizer.json. */
  readonly tokenizerJson: JsonObject | undefined;
  /** tokenizer_config.json, with the tokens of special_tokens_map.json where it names none itself. */
  readonly tokenizerConfig: JsonObject | undefined;
  /** Chat templates by name, the usual one called `default`. */
  readonly chatTemplate: Readonly<Record<string, string>> | undefined;
  /** Files of weights, by path within the folder. */
  readonly weights: {
    /** One file, or all shards in order. */
    readonly safetensors: readonly string[];
    /** For each tensor the shard that holds it, when there are several. */
    readonly shardOf: ReadonlyMap<string, string> | undefined;
    readonly gguf: readonly string[];
    readonly onnx: readonly string[];
  };
}

/** Files that make up a tokenizer; a saved model keeps them byte for byte. */
const tokenizerFileNames = [
  "tokenizer.json",
  "tokenizer_config.json",
  "special_tokens_map.json",
  "added_tokens.json",
  "tokenizer.model",
  "vocab.json",
  "vocab.txt",
  "merges.txt",
  "chat_template.jinja",
  "chat_template.json",
];

/**
 * Reads and checks the small files of a model, and finds its weights without opening them.
 * @throws FileError when files are missing; FormatError, LimitError when one is malformed
 */
export async function readModelFiles(files: ModelFiles): Promise<ModelFolder> {
  const listed = await files.list();
  if (listed.length > folderLimits.files) {
    throw new LimitError(`${files.name}: ${listed.length} files are over the limit of ${folderLimits.files}`);
  }
  const paths = new Set(listed.map(({ path }) => path));
  const object = async (name: string, limit = folderLimits.jsonBytes): Promise<JsonObject | undefined> =>
    paths.has(name) ? parseObject(await files.read(name, limit), `${files.name}/${name}`) : undefined;
  const weights = await findWeights(files, paths);
  const config = await object("config.json");
  if (!config && weights.gguf.length === 0 && weights.onnx.length === 0) {
    throw new FileError(`${files.name} has no config.json; is it the folder of a model?`);
  }
  if (config) checkConfig(config, `${files.name}/config.json`);
  const tokenizerConfig = await object("tokenizer_config.json");
  const specialTokens = await object("special_tokens_map.json");
  return {
    name: files.name,
    config,
    generationConfig: await object("generation_config.json"),
    tokenizerJson: await object("tokenizer.json", folderLimits.tokenizerBytes),
    tokenizerConfig: tokenizerConfig || specialTokens ? { ...specialTokens, ...tokenizerConfig } : undefined,
    chatTemplate: await findTemplates(files, paths, tokenizerConfig ?? {}),
    weights,
  };
}

/** JSON text that must be an object. @throws FormatError */
function parseObject(bytes: Uint8Array, where: string): JsonObject {
  const value = parseJson(decodeUtf8(bytes, where), where);
  if (!isJsonObject(value))
    throw new FormatError(`${where}: it holds ${JSON.stringify(value)?.slice(0, 40)}, not an object`);
  return value;
}

/** The entries that every config.json has alike; each architecture checks its own. @throws FormatError */
function checkConfig(config: JsonObject, where: string): void {
  const { model_type: type, architectures, vocab_size: vocabSize } = config;
  if (type !== undefined && typeof type !== "string") throw new FormatError(`${where}: "model_type" is not a name`);
  const named = architectures === undefined || architectures === null || isStrings(architectures);
  if (!named) throw new FormatError(`${where}: "architectures" is not a list of names`);
  if (vocabSize !== undefined && !(Number.isSafeInteger(vocabSize) && (vocabSize as number) > 0)) {
    throw new FormatError(`${where}: "vocab_size" is ${JSON.stringify(vocabSize)}, not a whole number above 0`);
  }
}

const isStrings = (value: unknown): value is string[] =>
  Array.isArray(value) && value.every((item) => typeof item === "string");

/** chat_template.jinja comes before what tokenizer_config.json says: newer tools write the former. */
async function findTemplates(
  files: ModelFiles,
  paths: ReadonlySet<string>,
  tokenizerConfig: JsonObject,
): Promise<Record<string, string> | undefined> {
  const found = new Map<string, string>();
  const { chat_template: configured } = tokenizerConfig;
  const where = `${files.name}/tokenizer_config.json`;
  if (typeof configured === "string") found.set("default", configured);
  else if (Array.isArray(configured)) {
    for (const entry of configured as unknown[]) {
      const { name, template } = isJsonObject(entry) ? entry : {};
      if (typeof name !== "string" || typeof template !== "string") {
        throw new FormatError(`${where}: an entry of "chat_template" is not a name with a template`);
      }
      if (found.has(name))
        throw new FormatError(`${where}: "chat_template" has two entries called ${JSON.stringify(name)}`);
      found.set(name, template);
    }
  } else if (configured !== undefined && configured !== null) {
    throw new FormatError(`${where}: "chat_template" is neither a template nor a list of them`);
  }
  const file = "chat_template.jinja";
  if (paths.has(file))
    found.set("default", decodeUtf8(await files.read(file, folderLimits.jsonBytes), `${files.name}/${file}`));
  return found.size > 0 ? Object.fromEntries(found) : undefined;
}

async function findWeights(files: ModelFiles, paths: ReadonlySet<string>): Promise<ModelFolder["weights"]> {
  const { name } = files;
  const ending = (suffix: string): string[] => [...paths].filter((path) => path.endsWith(suffix)).sort();
  const others = { gguf: ending(".gguf"), onnx: ending(".onnx") };
  if (paths.has("model.safetensors")) return { safetensors: ["model.safetensors"], shardOf: undefined, ...others };
  const indexName = "model.safetensors.index.json";
  if (!paths.has(indexName)) return { safetensors: ending(".safetensors"), shardOf: undefined, ...others };
  const index = await files.read(indexName, safetensorsLimits.indexBytes);
  const shardOf = await readShardIndex(memorySource(index, `${name}/${indexName}`));
  const shards = [...new Set(shardOf.values())].sort();
  const missing = shards.filter((shard) => !paths.has(shard));
  if (missing.length > 0) {
    throw new FileError(
      `${name} lacks ${missing.slice(0, 3).join(", ")}${missing.length > 3 ? ` and ${missing.length - 3} more` : ""}, which ${indexName} names; download it again`,
    );
  }
  return { safetensors: shards, shardOf, ...others };
}

/** The files of a model's tokenizer, untouched, for saving beside another model. */
export async function tokenizerFiles(files: ModelFiles): Promise<Record<string, Uint8Array>> {
  const listed = new Set((await files.list()).map(({ path }) => path));
  const found: Record<string, Uint8Array> = {};
  for (const name of tokenizerFileNames) {
    if (listed.has(name)) found[name] = await files.read(name, folderLimits.tokenizerBytes);
  }
  return found;
}

/** What `Tokenizer.fromFiles` needs of a folder. @throws FileError when there is no tokenizer.json */
export function tokenizerOf(folder: ModelFolder): {
  tokenizerJson: JsonObject;
  tokenizerConfig: JsonObject | undefined;
  chatTemplate: Readonly<Record<string, string>> | undefined;
} {
  const { name, tokenizerJson, tokenizerConfig, chatTemplate } = folder;
  if (!tokenizerJson) {
    throw new FileError(
      `${name} has no tokenizer.json; in Python, AutoTokenizer.from_pretrained(…).save_pretrained(…) writes one from other kinds of tokenizer files`,
    );
  }
  return { tokenizerJson, tokenizerConfig, chatTemplate };
}
