import { byteToken } from "./bpe-encode.ts";
import { FormatError } from "./errors.ts";
import { bpeModelOf, isJsonObject, type JsonObject, readTokenizerJson, type TokenizerDefinition } from "./tokenizer-json.ts";
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
  smollm: { type: "Sequence", pretokenizers: [{ type: "Digits", individual_digits: true }, { ...byteLevel, use_regex: true }] },
};

/** A tokenizer as GGUF metadata: names under `tokenizer.` with their values. */
export type GgufMetadata = Readonly<Record<string, unknown>>;

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
export function tokenizerJsonFromGguf(metadata: GgufMetadata): TokenizerFromGguf {
  const keys = new Keys(metadata);
  const tokens = keys.strings("tokens");
  const types = keys.has("token_type") ? keys.numbers("token_type", tokens.length) : tokens.map(() => tokenTypes.normal);
  const model = metadata["tokenizer.ggml.model"];
  if (model !== "gpt2" && model !== "llama") {
    throw new FormatError(`tokenizer.ggml.model is ${JSON.stringify(model)}; gpt2 and llama are supported`);
  }
  const added = tokens.flatMap((content, id) => {
    const special = types[id] === tokenTypes.control || types[id] === tokenTypes.unknown;
    if (!special && types[id] !== tokenTypes.userDefined) return [];
    return [{ id, content, single_word: false, lstrip: false, rstrip: false, normalized: false, special }];
  });
  for (const [id, content] of tokens.entries()) {
    if (types[id] === tokenTypes.byte && !/^<0x[0-9A-Fa-f]{2}>$/.test(content)) {
      throw new FormatError(`tokenizer.ggml.tokens: token ${id} is of type byte but reads ${JSON.stringify(content)}, not <0x00> to <0xFF>`);
    }
  }
  const vocab = Object.fromEntries(tokens.map((token, id) => [token, id]));
  const twice = tokens.find((token, id) => vocab[token] !== id);
  if (twice !== undefined) throw new FormatError(`tokenizer.ggml.tokens: ${JSON.stringify(twice)} is listed twice`);
  const role = (name: string): string | undefined => {
    const id = keys.has(name) ? keys.id(name, tokens.length) : undefined;
    return id === undefined ? undefined : tokens[id]!;
  };
  const [bos, eos, unknown, pad] = ["bos_token_id", "eos_token_id", "unknown_token_id", "padding_token_id"].map(role);
  const pre = keys.text("pre", model === "gpt2" ? "gpt-2" : "default");
  const before = keys.flag("add_bos_token", model === "llama" || pre === "llama-bpe") ? bos : undefined;
  const after = keys.flag("add_eos_token", false) ? eos : undefined;
  const template = metadata["tokenizer.chat_template"];
  return {
    tokenizerJson: {
      version: "1.0",
      truncation: null,
      padding: null,
      added_tokens: added,
      post_processor: around(before, after, vocab),
      ...(model === "gpt2" ? byteLevelParts(keys, pre, vocab) : sentencePieceParts(keys, tokens, types, unknown)),
    },
    tokenizerConfig: {
      ...(bos !== undefined && { bos_token: bos }),
      ...(eos !== undefined && { eos_token: eos }),
      ...(unknown !== undefined && { unk_token: unknown }),
      ...(pad !== undefined && { pad_token: pad }),
      ...(typeof template === "string" && { chat_template: template }),
    },
  };
}

/** Checked access to the keys under `tokenizer.ggml.`. */
class Keys {
  readonly #metadata: GgufMetadata;

  constructor(metadata: GgufMetadata) {
    this.#metadata = metadata;
  }

  has(name: string): boolean {
    return this.#metadata[`tokenizer.ggml.${name}`] !== undefined;
  }

  #list(name: string, length?: number): readonly unknown[] {
    const value = this.#metadata[`tokenizer.ggml.${name}`];
    const list = ArrayBuffer.isView(value) ? Array.from(value as Int32Array) : value;
    if (!Array.isArray(list)) throw new FormatError(`tokenizer.ggml.${name} is missing or not a list`);
    if (length !== undefined && list.length !== length) {
      throw new FormatError(`tokenizer.ggml.${name} has ${list.length} entries for ${length} tokens`);
    }
    return list;
  }

  strings(name: string): readonly string[] {
    const list = this.#list(name);
    const wrong = list.findIndex((entry) => typeof entry !== "string");
    if (wrong >= 0) throw new FormatError(`tokenizer.ggml.${name}: entry ${wrong} is not a string`);
    return list as string[];
  }

  numbers(name: string, length: number): readonly number[] {
    const list = this.#list(name, length);
    const wrong = list.findIndex((entry) => typeof entry !== "number" || Number.isNaN(entry));
    if (wrong >= 0) throw new FormatError(`tokenizer.ggml.${name}: entry ${wrong} is not a number`);
    return list as number[];
  }

  id(name: string, count: number): number {
    const id = Number(this.#metadata[`tokenizer.ggml.${name}`]);
    if (!Number.isInteger(id) || id < 0 || id >= count) {
      throw new FormatError(`tokenizer.ggml.${name} is ${String(this.#metadata[`tokenizer.ggml.${name}`])}, not the id of one of ${count} tokens`);
    }
    return id;
  }

  text(name: string, otherwise: string): string {
    const value = this.#metadata[`tokenizer.ggml.${name}`] ?? otherwise;
    if (typeof value !== "string") throw new FormatError(`tokenizer.ggml.${name} is not a string`);
    return value;
  }

  flag(name: string, otherwise: boolean): boolean {
    const value = this.#metadata[`tokenizer.ggml.${name}`] ?? otherwise;
    if (typeof value !== "boolean") throw new FormatError(`tokenizer.ggml.${name} is not a boolean`);
    return value;
  }
}

/** A post-processor that puts tokens before and after a text. */
function around(before: string | undefined, after: string | undefined, vocab: Readonly<Record<string, number>>): JsonObject | null {
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

function byteLevelParts(keys: Keys, pre: string, vocab: Readonly<Record<string, number>>): JsonObject {
  const preTokenizer = Object.hasOwn(preTokenizers, pre) ? preTokenizers[pre] : undefined;
  if (!preTokenizer) {
    throw new FormatError(`tokenizer.ggml.pre is ${JSON.stringify(pre)}; ${Object.keys(preTokenizers).join(", ")} are supported`);
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
      merges: keys.strings("merges"),
    },
  };
}

/** SentencePiece scores pieces instead of listing merges: any two pieces merge whose joint piece scores best. */
function sentencePieceParts(
  keys: Keys,
  tokens: readonly string[],
  types: readonly number[],
  unknown: string | undefined,
): JsonObject {
  const scores = keys.numbers("scores", tokens.length);
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
  const prefix = keys.flag("add_space_prefix", true);
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
  files: { readonly tokenizerJson: unknown; readonly tokenizerConfig?: JsonObject | undefined; readonly chatTemplate?: string | undefined },
  vocabSize?: number,
): GgufMetadata {
  const definition = readTokenizerJson(files.tokenizerJson);
  const { tokens, vocab, added, model, json } = definition;
  const size = vocabSize ?? tokens.length;
  if (size < tokens.length) throw new FormatError(`a vocabulary of ${size} cannot hold the ${tokens.length} tokens of tokenizer.json`);
  if (model.type !== "BPE") throw new FormatError(`llama.cpp has no tokenizer like a ${model.type} model; BPE can be written`);
  const isByteLevel = isJsonObject(json["decoder"]) && json["decoder"]["type"] === "ByteLevel";
  const addedById = new Map(added.map((token) => [token.id, token]));
  const unknown = model.json["unk_token"];
  const byteTokens = new Set(isByteLevel ? [] : Array.from({ length: 256 }, (_, byte) => byteToken(byte)));
  const typeOf = (id: number): number => {
    const token = tokens[id];
    if (token === undefined) return tokenTypes.unused;
    if (!isByteLevel && token === unknown) return tokenTypes.unknown;
    const extra = addedById.get(id);
    if (extra) return extra.special ? tokenTypes.control : tokenTypes.userDefined;
    return byteTokens.has(token) ? tokenTypes.byte : tokenTypes.normal;
  };
  const ids = Array.from({ length: size }, (_, id) => id);
  const { single } = isJsonObject(json["post_processor"]) ? json["post_processor"] : {};
  const [first, last] = Array.isArray(single) ? [single[0], single.at(-1)] : [];
  const roleIds = Object.entries({ bos: "bos", eos: "eos", unk: "unknown", pad: "padding" }).flatMap(([role, name]) => {
    const value = files.tokenizerConfig?.[`${role}_token`];
    const id = vocab.get((isJsonObject(value) ? value["content"] : value) as string);
    return id === undefined ? [] : [[`tokenizer.ggml.${name}_token_id`, id]];
  });
  return {
    "tokenizer.ggml.model": isByteLevel ? "gpt2" : "llama",
    ...(isByteLevel ? byteLevelKeys(definition) : sentencePieceKeys(definition, size)),
    "tokenizer.ggml.tokens": ids.map((id) => tokens[id] ?? `[PAD${id}]`),
    "tokenizer.ggml.token_type": Int32Array.from(ids, typeOf),
    ...Object.fromEntries(roleIds),
    "tokenizer.ggml.add_bos_token": isJsonObject(first) && "SpecialToken" in first,
    "tokenizer.ggml.add_eos_token": isJsonObject(last) && "SpecialToken" in last,
    ...(files.chatTemplate !== undefined && { "tokenizer.chat_template": files.chatTemplate }),
  };
}

function byteLevelKeys(definition: TokenizerDefinition): GgufMetadata {
  const wanted = cutting(definition.json["pre_tokenizer"]);
  const pre = Object.keys(preTokenizers).find((name) => cutting(preTokenizers[name]) === wanted);
  if (pre === undefined || definition.json["normalizer"]) {
    throw new FormatError(
      `llama.cpp knows no way of cutting text like this tokenizer.json's normalizer and pre_tokenizer; ${Object.keys(preTokenizers).join(", ")} can be written`,
    );
  }
  const { merges } = bpeModelOf(definition);
  return { "tokenizer.ggml.pre": pre, "tokenizer.ggml.merges": merges.map((pair) => pair.join(" ")) };
}

/** What of a pre-tokenizer decides where it cuts, as text to compare. */
function cutting(preTokenizer: unknown): string {
  const walk = (part: unknown): unknown => {
    if (!isJsonObject(part)) return part;
    const { type, pretokenizers, pattern, behavior, invert, add_prefix_space: prefix, use_regex: regex, individual_digits: digits } = part;
    if (type === "Sequence" && Array.isArray(pretokenizers)) return pretokenizers.map(walk);
    return [type, pattern, behavior, invert === true, prefix === true, regex !== false, digits === true];
  };
  const steps = walk(preTokenizer);
  return JSON.stringify(Array.isArray(steps) && Array.isArray(steps[0]) ? steps : [steps]);
}

/** Scores that make llama.cpp merge in the order of the merges. */
function sentencePieceKeys(definition: TokenizerDefinition, size: number): GgufMetadata {
  const { byteFallback, merges } = bpeModelOf(definition);
  if (!byteFallback || definition.json["pre_tokenizer"]) {
    throw new FormatError("llama.cpp has no tokenizer like this BPE, which is neither byte-level nor SentencePiece's with byte tokens");
  }
  const scores = new Float32Array(size).fill(-merges.length);
  for (let rank = merges.length - 1; rank >= 0; rank--) scores[definition.vocab.get(merges[rank]!.join(""))!] = -rank;
  const normalizer = JSON.stringify(definition.json["normalizer"] ?? null);
  return {
    "tokenizer.ggml.pre": "default",
    "tokenizer.ggml.scores": scores,
    "tokenizer.ggml.add_space_prefix": normalizer.includes('"Prepend"'),
  };
}
