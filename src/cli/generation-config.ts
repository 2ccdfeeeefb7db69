import { FormatError, type Tokenizer } from "../formats/index.ts";
import { decodeUtf8, isJsonObject, type JsonObject, parseJson } from "../formats/json.ts";
import { localModelFiles } from "../formats/node.ts";
import type { SamplingOptions } from "../generate/index.ts";

/** What a model's authors advise. */
export type SamplingAdvice = Pick<SamplingOptions, "temperature" | "topK" | "topP" | "minP" | "repetitionPenalty">;

const fileName = "generation_config.json";
const sizeLimit = 1_000_000;

/**
 * The content of a model's generation_config.json; empty for a model without one.
 * @param source path of a model's folder or file
 * @throws FormatError, LimitError when it is malformed; FileError
 */
export async function readGenerationConfig(source: string): Promise<JsonObject> {
  // A model in a single file brings no others.
  if (/\.(gguf|bin)$/i.test(source)) return {};
  const files = await localModelFiles(source);
  const listed = await files.list();
  if (!listed.some(({ path }) => path === fileName)) return {};
  const where = `${source}/${fileName}`;
  const value = parseJson(decodeUtf8(await files.read(fileName, sizeLimit), where), where);
  if (!isJsonObject(value)) throw new FormatError(`${where}: it holds no object`);
  return value;
}

/** Entries by the name that Hugging Face gives them, with what they may be. */
const advised = {
  temperature: ["temperature", (x: number) => x >= 0],
  top_p: ["topP", (x: number) => x > 0 && x <= 1],
  min_p: ["minP", (x: number) => x >= 0 && x <= 1],
  // 0 stands for no limit.
  top_k: ["topK", (x: number) => Number.isInteger(x) && x >= 0],
  repetition_penalty: ["repetitionPenalty", (x: number) => x > 0],
} as const;

/** @throws FormatError for an entry outside of its range */
export function samplingAdvice(config: JsonObject, source: string): SamplingAdvice {
  const advice: { -readonly [K in keyof SamplingAdvice]: SamplingAdvice[K] } = {};
  for (const [key, [name, holds]] of Object.entries(advised)) {
    const value = config[key] ?? undefined;
    if (value === undefined) continue;
    if (typeof value !== "number" || !Number.isFinite(value) || !holds(value))
      throw new FormatError(`${source}/${fileName}: "${key}" is ${JSON.stringify(value)}, which it cannot be`);
    if (!(key === "top_k" && value === 0)) advice[name] = value;
  }
  return advice;
}

/**
 * The tokens that end a text: the tokenizer's and those that the model's files name as `eos_token_id`.
 * @throws FormatError when one is no token's id
 */
export function endTokens(tokenizer: Tokenizer, configs: readonly JsonObject[], source: string): number[] {
  const named = configs.flatMap(({ eos_token_id: ids }) => ids ?? []);
  const wrong = named.find((id) => !Number.isSafeInteger(id) || (id as number) < 0);
  if (wrong !== undefined)
    throw new FormatError(`${source}: "eos_token_id" is ${JSON.stringify(wrong)}, which is no token's id`);
  return [...new Set([...(tokenizer.eosId === undefined ? [] : [tokenizer.eosId]), ...(named as number[])])];
}
