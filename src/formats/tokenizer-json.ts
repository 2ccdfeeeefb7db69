import type { BpeModel } from "./bpe-encode.ts";
import { FormatError, LimitError } from "./errors.ts";
import { tokenizerLimits } from "./hf-limits.ts";
import { isJsonObject, type JsonObject } from "./json.ts";
import { checkRegex, isPattern } from "./tokenizer-regex.ts";

/** A token that is found in text before the model sees it. */
export interface AddedToken {
  readonly id: number;
  readonly content: string;
  /** Whether it controls the model rather than being text. */
  readonly special: boolean;
  /** Whether it is looked for in normalized text. */
  readonly normalized: boolean;
  /** Whether it swallows the whitespace before it, after it. */
  readonly lstrip: boolean;
  readonly rstrip: boolean;
  /** Whether it must not touch letters or digits. */
  readonly singleWord: boolean;
}

/** What a tokenizer.json says, checked. */
export interface TokenizerDefinition {
  readonly json: JsonObject;
  readonly model: { readonly type: "BPE" | "Unigram" | "WordPiece" | "WordLevel"; readonly json: JsonObject };
  /** Ids of all tokens, added ones included. */
  readonly vocab: ReadonlyMap<string, number>;
  /** Tokens by id; an id may stand for none. */
  readonly tokens: readonly (string | undefined)[];
  readonly added: readonly AddedToken[];
}

const where = "tokenizer.json";

/**
 * Checks the content of a tokenizer.json: vocabulary and ids must be one to one, added tokens must agree with them,
 * and regular expressions must be of a kind that ends.
 * @throws FormatError, LimitError
 */
export function readTokenizerJson(json: unknown): TokenizerDefinition {
  if (!isJsonObject(json)) throw new FormatError(`${where}: it holds no JSON object`);
  if (!isJsonObject(json["model"])) {
    throw new FormatError(`${where}: it has no "model"; is it the tokenizer.json of a Hugging Face model?`);
  }
  for (const part of ["normalizer", "pre_tokenizer", "post_processor", "decoder"]) {
    checkPart(json[part] ?? null, `${where}: ${part}`);
  }
  const model = { type: modelType(json["model"]), json: json["model"] };
  const vocab = new Map<string, number>();
  const tokens: (string | undefined)[] = [];
  const define = (token: string, id: unknown): void => {
    if (typeof id !== "number" || !Number.isInteger(id) || id < 0) {
      throw new FormatError(
        `${where}: the token ${JSON.stringify(token)} has the id ${JSON.stringify(id)}, not a whole number`,
      );
    }
    if (id >= tokenizerLimits.tokens) {
      throw new LimitError(
        `${where}: the token ${JSON.stringify(token)} has the id ${id}, over the limit of ${tokenizerLimits.tokens}`,
      );
    }
    const other = tokens[id];
    if (other !== undefined && other !== token) {
      throw new FormatError(
        `${where}: the tokens ${JSON.stringify(other)} and ${JSON.stringify(token)} share the id ${id}; the vocabulary is not one to one`,
      );
    }
    if (vocab.has(token) && vocab.get(token) !== id) {
      throw new FormatError(`${where}: the token ${JSON.stringify(token)} has the ids ${vocab.get(token)} and ${id}`);
    }
    vocab.set(token, id);
    tokens[id] = token;
  };
  for (const [token, id] of modelVocab(model)) define(token, id);
  const added = readAddedTokens(json["added_tokens"]);
  for (const { content, id } of added) define(content, id);
  if (vocab.size === 0) throw new FormatError(`${where}: its vocabulary is empty`);
  return { json, model, vocab, tokens, added };
}

function modelType(model: JsonObject): TokenizerDefinition["model"]["type"] {
  const { type, vocab, merges } = model;
  // Old files leave the type out.
  if (type === undefined || type === null) {
    if (Array.isArray(vocab)) return "Unigram";
    if (merges !== undefined) return "BPE";
    return model["continuing_subword_prefix"] === undefined ? "WordLevel" : "WordPiece";
  }
  if (type === "BPE" || type === "Unigram" || type === "WordPiece" || type === "WordLevel") return type;
  throw new FormatError(
    `${where}: the model ${JSON.stringify(type)} is not supported; BPE, Unigram, WordPiece and WordLevel are`,
  );
}

/** The model's own tokens with their ids, as the file gives them. */
function modelVocab({ type, json }: TokenizerDefinition["model"]): [string, unknown][] {
  const { vocab } = json;
  if (type !== "Unigram") {
    if (!isJsonObject(vocab)) throw new FormatError(`${where}: its model has no "vocab" object`);
    return checkCount(Object.entries(vocab));
  }
  if (!Array.isArray(vocab)) throw new FormatError(`${where}: its Unigram model has no "vocab" list`);
  return checkCount(vocab).map((entry: unknown, id) => {
    const [piece, score] = Array.isArray(entry) ? (entry as unknown[]) : [];
    if (typeof piece !== "string" || typeof score !== "number") {
      throw new FormatError(`${where}: entry ${id} of its vocabulary is not a piece with its score`);
    }
    return [piece, id];
  });
}

function checkCount<T>(entries: T[]): T[] {
  if (entries.length > tokenizerLimits.tokens) {
    throw new LimitError(`${where}: ${entries.length} tokens are over the limit of ${tokenizerLimits.tokens}`);
  }
  return entries;
}

function readAddedTokens(list: unknown): AddedToken[] {
  if (list === undefined || list === null) return [];
  if (!Array.isArray(list)) throw new FormatError(`${where}: "added_tokens" is not a list`);
  if (list.length > tokenizerLimits.addedTokens) {
    throw new LimitError(`${where}: ${list.length} added tokens are over the limit of ${tokenizerLimits.addedTokens}`);
  }
  const seen = new Set<string>();
  return list.map((entry: unknown, i) => {
    const {
      id,
      content,
      special,
      normalized,
      lstrip,
      rstrip,
      single_word: singleWord,
    } = isJsonObject(entry) ? entry : {};
    if (typeof content !== "string" || content === "" || typeof id !== "number") {
      throw new FormatError(`${where}: added token ${i} lacks its text or its id`);
    }
    if (content.length > tokenizerLimits.addedTokenLength) {
      throw new LimitError(`${where}: added token ${i} is longer than ${tokenizerLimits.addedTokenLength} characters`);
    }
    if (seen.has(content)) throw new FormatError(`${where}: the token ${JSON.stringify(content)} is added twice`);
    seen.add(content);
    return {
      id,
      content,
      special: special === true,
      normalized: typeof normalized === "boolean" ? normalized : special !== true,
      lstrip: lstrip === true,
      rstrip: rstrip === true,
      singleWord: singleWord === true,
    };
  });
}

/** Checks that a part of the pipeline is an object with a type, all the way down, and vets its regular expressions. */
function checkPart(part: unknown, name: string): void {
  if (part === null) return;
  if (!isJsonObject(part) || typeof part["type"] !== "string")
    throw new FormatError(`${name} is not an object with a "type"`);
  const { pattern } = part;
  if (part["type"] === "Replace" && !isPattern(pattern)) {
    throw new FormatError(`${name}: its pattern is neither a string nor a regular expression`);
  }
  // Replacing runs to its end in one go; cutting text into words (`tokenizer-split.ts`) is watched.
  if (isPattern(pattern) && "Regex" in pattern) checkRegex(pattern.Regex, name, part["type"] === "Split" ? 1 : 0);
  for (const list of ["normalizers", "pretokenizers", "processors", "decoders"]) {
    const inner = part[list];
    if (Array.isArray(inner)) for (const [i, step] of inner.entries()) checkPart(step, `${name}.${list}[${i}]`);
  }
}

/**
 * The BPE model of a definition whose model is of that type. It never makes a special token out of text, even where
 * a merge or the vocabulary would. @throws FormatError
 */
export function bpeModelOf({ model, added }: TokenizerDefinition): BpeModel {
  const { json } = model;
  const { merges, unk_token: unknown } = json;
  const vocab = new Map(modelVocab(model) as [string, number][]);
  const special = new Set(added.filter((token) => token.special).map(({ content }) => content));
  const continuationPrefix = text(json, "continuing_subword_prefix");
  if (!Array.isArray(merges)) throw new FormatError(`${where}: its BPE model has no list of "merges"`);
  if (typeof unknown === "string" && !vocab.has(unknown)) {
    throw new FormatError(`${where}: the unknown token ${JSON.stringify(unknown)} is not in the vocabulary`);
  }
  return {
    vocab,
    merges: merges
      .map(readMerge)
      .filter(([left, right]) => !special.has(left + right.slice(continuationPrefix.length))),
    unknown: text(json, "unk_token") || undefined,
    fuseUnknown: json["fuse_unk"] === true,
    byteFallback: json["byte_fallback"] === true,
    wholeWords:
      json["ignore_merges"] === true ? new Map([...vocab].filter(([token]) => !special.has(token))) : new Map(),
    continuationPrefix,
    wordEnd: text(json, "end_of_word_suffix"),
  };
}

function text(model: JsonObject, key: string): string {
  const value = model[key] ?? "";
  if (typeof value !== "string") throw new FormatError(`${where}: the model's "${key}" is not a string`);
  return value;
}

/** A merge, written as a pair or, in older files, as two tokens with a space between them. */
function readMerge(merge: unknown, rank: number): readonly [string, string] {
  const pair = typeof merge === "string" ? merge.split(" ") : merge;
  const [left, right] = Array.isArray(pair) && pair.length === 2 ? (pair as unknown[]) : [];
  if (typeof left === "string" && typeof right === "string") return [left, right];
  throw new FormatError(`${where}: merge ${rank} is ${JSON.stringify(merge)}, not a pair of tokens`);
}
