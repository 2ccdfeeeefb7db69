import { byteToken } from "./bpe-encode.ts";
import { FormatError } from "./errors.ts";
import { type Metadata, type MetadataValue, numberAt, numbersAt, stringAt, stringsAt } from "./gguf/metadata.ts";
import { isJsonObject, type JsonObject } from "./json.ts";
import { bpeModelOf, readTokenizerJson, type TokenizerDefinition } from "./tokenizer-json.ts";
import { llama3Regex } from "./tokenizer-split.ts";

/** The values of llama.cpp's `tokenizer.ggml.token_type`. */
const tokenTypes = { normal: 1, unknown: 2, control: 3, userDefined: 4, unused: 5, byte: 6 } as const;

const qwen2Regex = llama3Regex.replace("\\p{N}{1,3}", "\\p{N}");

const byteLevel = { type: "ByteLevel", add_prefix_space: false, trim_offsets: true };

const splitting = (regex: string): JsonObject => ({
  type: "Sequence",
  pretokenizers: [
    { type: "Split", pattern: { Regex: regex }, behavior: "Isolated", invert: false },
    { ...byteLevel, use_regex: false },
  ],
});

/** What llama.cpp calls the ways to cut text into words (`tokenizer.ggml.pre`). */
const preTokenizers: Readonly<Record<string, JsonObject>> = {
  "gpt-2": { ...byteLevel, use_regex: true },
  "llama-bpe": splitting(llama3Regex),
  qwen2: splitting(qwen2Regex),
  smollm: {
    type: "Sequence",
    pretokenizers: [
      { type: "Digits", individual_digits: true },
      { ...byteLevel, use_regex: true },
    ],
  },
};

/** The two files of a tokenizer that GGUF metadata amounts to. */
export interface TokenizerFromGguf {
  readonly tokenizerJson: JsonObject;
  readonly tokenizerConfig: JsonObject;
}

/**
 * Builds the content of tokenizer.json and tokenizer_config.json from a GGUF file's metadata, whose
 * `tokenizer.ggml.model` is `gpt2` (byte-level BPE) or `llama` (SentencePiece's BPE).
 * @throws FormatError when keys are missing, malformed, contradictory or of a kind that is not known
 */
export function tokenizerJsonFromGguf(metadata: Metadata): TokenizerFromGguf {
  const model = stringAt(metadata, "tokenizer.ggml.model");
  if (model !== "gpt2" && model !== "llama") {
    throw new FormatError(`tokenizer.ggml.model is ${JSON.stringify(model)}; gpt2 and llama are supported`);
  }
  const tokens = stringsAt(metadata, "tokenizer.ggml.tokens");
  const types = tokenTypesAt(metadata, tokens);
  const vocab = Object.fromEntries(tokens.map((token, id) => [token, id]));
  const twice = tokens.find((token, id) => vocab[token] !== id);
  if (twice !== undefined) throw new FormatError(`tokenizer.ggml.tokens: ${JSON.stringify(twice)} is listed twice`);
  const added = tokens.flatMap((content, id) => {
    const special = types[id] === tokenTypes.control || types[id] === tokenTypes.unknown;
    if (!special && types[id] !== tokenTypes.userDefined) return [];
    return [{ id, content, single_word: false, lstrip: false, rstrip: false, normalized: false, special }];
  });
  const role = (name: string): string | undefined => {
    const key = `tokenizer.ggml.${name}_token_id`;
    if (!metadata.has(key)) return undefined;
    const token = tokens[numberAt(metadata, key)];
    if (token === undefined)
      throw new FormatError(`${key} is ${numberAt(metadata, key)}, not the id of one of ${tokens.length} tokens`);
    return token;
  };
  const [bos, eos, unknown, pad] = ["bos", "eos", "unknown", "padding"].map(role);
  const pre = stringAt(metadata, "tokenizer.ggml.pre", model === "gpt2" ? "gpt-2" : "default");
  const before = flagAt(metadata, "add_bos_token", model === "llama" || pre === "llama-bpe") ? bos : undefined;
  const after = flagAt(metadata, "add_eos_token", false) ? eos : undefined;
  return {
    tokenizerJson: {
      version: "1.0",
      truncation: null,
      padding: null,
      added_tokens: added,
      post_processor: around(before, after, vocab),
      ...(model === "gpt2"
        ? byteLevelParts(metadata, pre, vocab)
        : sentencePieceParts(metadata, tokens, types, unknown)),
    },
    tokenizerConfig: {
      ...(bos !== undefined && { bos_token: bos }),
      ...(eos !== undefined && { eos_token: eos }),
      ...(unknown !== undefined && { unk_token: unknown }),
      ...(pad !== undefined && { pad_token: pad }),
      ...(metadata.has("tokenizer.chat_template") && { chat_template: stringAt(metadata, "tokenizer.chat_template") }),
    },
  };
}

/** The type of each token, all of them normal in files that do not tell. @throws FormatError */
function tokenTypesAt(metadata: Metadata, tokens: readonly string[]): readonly number[] {
  const key = "tokenizer.ggml.token_type";
  if (!metadata.has(key)) return tokens.map(() => tokenTypes.normal);
  const types = numbersAt(metadata, key);
  checkLength(key, types, tokens);
  for (const [id, token] of tokens.entries()) {
    if (types[id] === tokenTypes.byte && !/^<0x[0-9A-F]{2}>$/.test(token)) {
      throw new FormatError(
        `tokenizer.ggml.tokens: token ${id} is of type byte but reads ${JSON.stringify(token)}, not <0x00> to <0xFF>`,
      );
    }
  }
  return types;
}

function checkLength(key: string, list: readonly unknown[], tokens: readonly string[]): void {
  if (list.length !== tokens.length)
    throw new FormatError(`${key} has ${list.length} entries for ${tokens.length} tokens`);
}

function flagAt(metadata: Metadata, name: string, otherwise: boolean): boolean {
  const found = metadata.get(`tokenizer.ggml.${name}`);
  if (!found) return otherwise;
  if (found.type !== "bool") throw new FormatError(`tokenizer.ggml.${name} is not a boolean`);
  return found.value;
}

/** A post-processor that puts tokens before and after a text. */
function around(
  before: string | undefined,
  after: string | undefined,
  vocab: Readonly<Record<string, number>>,
): JsonObject | null {
  if (before === undefined && after === undefined) return null;
  const token = (content: string | undefined, type: number): JsonObject[] =>
    content === undefined ? [] : [{ SpecialToken: { id: content, type_id: type } }];
  const sequence = (id: string, type: number): JsonObject[] => [
    ...token(before, type),
    { Sequence: { id, type_id: type } },
    ...token(after, type),
  ];
  return {
    type: "TemplateProcessing",
    single: sequence("A", 0),
    pair: [...sequence("A", 0), ...sequence("B", 1)],
    special_tokens: Object.fromEntries(
      [before, after].flatMap((id) => (id === undefined ? [] : [[id, { id, ids: [vocab[id]!], tokens: [id] }]])),
    ),
  };
}

const bpe = { type: "BPE", dropout: null, continuing_subword_prefix: null, end_of_word_suffix: null };

function byteLevelParts(metadata: Metadata, pre: string, vocab: Readonly<Record<string, number>>): JsonObject {
  const preTokenizer = Object.hasOwn(preTokenizers, pre) ? preTokenizers[pre] : undefined;
  if (!preTokenizer) {
    throw new FormatError(
      `tokenizer.ggml.pre is ${JSON.stringify(pre)}; ${Object.keys(preTokenizers).join(", ")} are supported`,
    );
  }
  return {
    normalizer: null,
    pre_tokenizer: preTokenizer,
    decoder: { ...byteLevel, use_regex: true },
    model: {
      ...bpe,
      unk_token: null,
      fuse_unk: false,
      byte_fallback: false,
      ignore_merges: pre === "llama-bpe",
      vocab,
      merges: stringsAt(metadata, "tokenizer.ggml.merges"),
    },
  };
}

/** SentencePiece scores pieces instead of listing merges: any two pieces merge whose joint piece scores best. */
function sentencePieceParts(
  metadata: Metadata,
  tokens: readonly string[],
  types: readonly number[],
  unknown: string | undefined,
): JsonObject {
  const scores = numbersAt(metadata, "tokenizer.ggml.scores");
  checkLength("tokenizer.ggml.scores", scores, tokens);
  const nan = scores.findIndex(Number.isNaN);
  if (nan >= 0) throw new FormatError(`tokenizer.ggml.scores: the score of token ${nan} is not a number`);
  const ids = new Map(tokens.map((token, id) => [token, id]));
  const mergeable = (id: number): boolean => types[id] === tokenTypes.normal || types[id] === tokenTypes.userDefined;
  const merges: { left: number; right: number; score: number }[] = [];
  for (const [id, token] of tokens.entries()) {
    if (!mergeable(id)) continue;
    for (let cut = 1; cut < token.length; cut++) {
      const left = ids.get(token.slice(0, cut));
      const right = ids.get(token.slice(cut));
      if (left !== undefined && right !== undefined && mergeable(left) && mergeable(right)) {
        merges.push({ left, right, score: scores[id]! });
      }
    }
  }
  merges.sort((a, b) => b.score - a.score || a.left - b.left || a.right - b.right);
  const mark = { type: "Replace", pattern: { String: " " }, content: "▁" };
  const prefix = flagAt(metadata, "add_space_prefix", true);
  const unmark = [
    { type: "Replace", pattern: { String: "▁" }, content: " " },
    { type: "ByteFallback" },
    { type: "Fuse" },
    ...(prefix ? [{ type: "Strip", content: " ", start: 1, stop: 0 }] : []),
  ];
  return {
    normalizer: { type: "Sequence", normalizers: [...(prefix ? [{ type: "Prepend", prepend: "▁" }] : []), mark] },
    pre_tokenizer: null,
    decoder: { type: "Sequence", decoders: unmark },
    model: {
      ...bpe,
      unk_token: unknown ?? null,
      fuse_unk: true,
      byte_fallback: true,
      ignore_merges: false,
      vocab: Object.fromEntries(ids),
      merges: merges.map(({ left, right }) => [tokens[left]!, tokens[right]!]),
    },
  };
}

/**
 * The GGUF metadata with which llama.cpp tokenizes as `files` say: `gpt2` for byte-level BPE, `llama` for BPE in
 * SentencePiece's manner.
 * @param vocabSize rows of the model's embedding table; ids without a token become unused ones
 * @throws FormatError when llama.cpp has no tokenizer like it
 */
export function ggufTokenizerMetadata(
  files: {
    readonly tokenizerJson: unknown;
    readonly tokenizerConfig?: JsonObject | undefined;
    readonly chatTemplate?: string | undefined;
  },
  vocabSize?: number,
): Metadata {
  const definition = readTokenizerJson(files.tokenizerJson);
  const { tokens, vocab, model, json } = definition;
  const size = vocabSize ?? tokens.length;
  if (size < tokens.length)
    throw new FormatError(`a vocabulary of ${size} cannot hold the ${tokens.length} tokens of tokenizer.json`);
  if (model.type !== "BPE")
    throw new FormatError(`llama.cpp has no tokenizer like a ${model.type} model; BPE can be written`);
  const isByteLevel = isJsonObject(json["decoder"]) && json["decoder"]["type"] === "ByteLevel";
  const metadata = new Map<string, MetadataValue>();
  const set = (name: string, value: MetadataValue): unknown => metadata.set(`tokenizer.ggml.${name}`, value);
  set("model", { type: "string", value: isByteLevel ? "gpt2" : "llama" });
  if (isByteLevel) {
    set("pre", { type: "string", value: preTokenizerName(json) });
    set("merges", { type: "array", of: "string", value: bpeModelOf(definition).merges.map((pair) => pair.join(" ")) });
  } else {
    set("pre", { type: "string", value: "default" });
    set("scores", { type: "array", of: "f32", value: sentencePieceScores(definition, size) });
    const prefix = JSON.stringify(json["normalizer"] ?? null).includes('"Prepend"');
    set("add_space_prefix", { type: "bool", value: prefix });
  }
  const typeOf = tokenTypeOf(definition, isByteLevel);
  const ids = Array.from({ length: size }, (_, id) => id);
  set("tokens", { type: "array", of: "string", value: ids.map((id) => tokens[id] ?? `[PAD${id}]`) });
  set("token_type", { type: "array", of: "i32", value: Int32Array.from(ids, typeOf) });
  for (const [role, name] of Object.entries({ bos: "bos", eos: "eos", unk: "unknown", pad: "padding" })) {
    const value = files.tokenizerConfig?.[`${role}_token`];
    const id = vocab.get((isJsonObject(value) ? value["content"] : value) as string);
    if (id !== undefined) set(`${name}_token_id`, { type: "u32", value: id });
  }
  const { single } = isJsonObject(json["post_processor"]) ? json["post_processor"] : {};
  const [first, last] = Array.isArray(single) ? [single[0], single.at(-1)] : [];
  set("add_bos_token", { type: "bool", value: isJsonObject(first) && "SpecialToken" in first });
  set("add_eos_token", { type: "bool", value: isJsonObject(last) && "SpecialToken" in last });
  if (files.chatTemplate !== undefined)
    metadata.set("tokenizer.chat_template", { type: "string", value: files.chatTemplate });
  return metadata;
}

/** Gives the type of each id in llama.cpp's terms. */
function tokenTypeOf({ tokens, added, model }: TokenizerDefinition, isByteLevel: boolean): (id: number) => number {
  const addedById = new Map(added.map((token) => [token.id, token]));
  const byteTokens = new Set(isByteLevel ? [] : Array.from({ length: 256 }, (_, byte) => byteToken(byte)));
  return (id) => {
    const token = tokens[id];
    if (token === undefined) return tokenTypes.unused;
    if (!isByteLevel && token === model.json["unk_token"]) return tokenTypes.unknown;
    const extra = addedById.get(id);
    if (extra) return extra.special ? tokenTypes.control : tokenTypes.userDefined;
    return byteTokens.has(token) ? tokenTypes.byte : tokenTypes.normal;
  };
}

/** llama.cpp's name for the way that a byte-level tokenizer.json cuts text. @throws FormatError when it has none */
function preTokenizerName(json: JsonObject): string {
  const wanted = cutting(json["pre_tokenizer"]);
  const names = Object.keys(preTokenizers);
  const found = names.find((name) => cutting(preTokenizers[name]) === wanted);
  if (found === undefined || json["normalizer"]) {
    throw new FormatError(
      `llama.cpp knows no way of cutting text like this tokenizer.json's normalizer and pre_tokenizer; ${names.join(", ")} can be written`,
    );
  }
  return found;
}

/** What of a pre-tokenizer decides where it cuts, as text to compare. */
function cutting(preTokenizer: unknown): string {
  const walk = (part: unknown): unknown[] => {
    if (!isJsonObject(part)) return [part];
    const {
      type,
      pretokenizers,
      pattern,
      behavior,
      invert,
      add_prefix_space: prefix,
      use_regex: regex,
      individual_digits: digits,
    } = part;
    if (type === "Sequence" && Array.isArray(pretokenizers)) return pretokenizers.flatMap(walk);
    return [[type, pattern, behavior, invert === true, prefix === true, regex !== false, digits === true]];
  };
  return JSON.stringify(walk(preTokenizer));
}

/** Scores that make llama.cpp merge in the order of the merges. @throws FormatError */
function sentencePieceScores(definition: TokenizerDefinition, size: number): Float32Array {
  const { byteFallback, merges } = bpeModelOf(definition);
  if (!byteFallback || definition.json["pre_tokenizer"]) {
    throw new FormatError(
      "llama.cpp has no tokenizer like this BPE, which is neither byte-level nor SentencePiece's with byte tokens",
    );
  }
  const scores = new Float32Array(size).fill(-merges.length);
  for (let rank = merges.length - 1; rank >= 0; rank--) scores[definition.vocab.get(merges[rank]!.join(""))!] = -rank;
  return scores;
}
