import { ArgumentError } from "../tensor/errors.ts";
import { BpeEncoder } from "./bpe-encode.ts";
import { ChatTemplate, ChatTemplateError } from "./chat-template.ts";
import { FormatError } from "./errors.ts";
import { isJsonObject, type JsonObject } from "./json.ts";
import { AddedTokenFinder } from "./tokenizer-added.ts";
import { makeDecoder, type TokenDecoder, type TokenStream } from "./tokenizer-decode.ts";
import { bpeModelOf, readTokenizerJson, type TokenizerDefinition } from "./tokenizer-json.ts";
import { type LibraryParts, libraryParts } from "./tokenizer-library.ts";
import { makeSplitter, type Splitter } from "./tokenizer-split.ts";

/** The files of a tokenizer, parsed. */
export interface TokenizerFiles {
  /** Content of tokenizer.json. */
  readonly tokenizerJson: unknown;
  /** Content of tokenizer_config.json, which names the special tokens by role. */
  readonly tokenizerConfig?: JsonObject | undefined;
  /** The chat template, or several by name with the usual one called `default`. */
  readonly chatTemplate?: string | Readonly<Record<string, string>> | undefined;
}

export interface EncodeOptions {
  /** Whether to put what begins and ends a text (`<s>`) around it; true unless said otherwise. */
  readonly addSpecialTokens?: boolean;
  /** Whether the text of a special token stands for that token. By default it is text like any other. */
  readonly allowSpecial?: boolean;
}

export interface DecodeOptions {
  /** Whether special tokens give no text; false unless said otherwise. */
  readonly skipSpecialTokens?: boolean;
}

/** A message of a conversation; templates may look at further fields. */
export interface ChatMessage {
  readonly role: string;
  readonly content?: unknown;
  readonly [field: string]: unknown;
}

export interface ChatOptions {
  /** Whether to end with what begins the model's answer. */
  readonly addGenerationPrompt?: boolean;
  /** Descriptions of tools (JSON schemas) that the model may call. */
  readonly tools?: readonly unknown[];
  /** Further variables that the template knows, such as `enable_thinking`. */
  readonly variables?: Readonly<Record<string, unknown>>;
  /** Time that the template sees, when it asks. */
  readonly now?: Date;
}

const roles = ["bos", "eos", "unk", "sep", "pad", "cls", "mask"] as const;
type Role = (typeof roles)[number];

const loneSurrogate = /\p{Surrogate}/gu;

/** Turns text into the ids of tokens and back, as a tokenizer.json says. */
export class Tokenizer {
  /** Size of the table of embeddings that holds every token: one more than the largest id. */
  readonly vocabSize: number;
  /** Ids of the tokens that control the model rather than being text. */
  readonly specialTokens: ReadonlyMap<string, number>;
  /** The template for conversations, where there is one. */
  readonly chatTemplate: ChatTemplate | undefined;
  /** The content that it was made from, for saving beside a model. */
  readonly files: TokenizerFiles;

  readonly #definition: TokenizerDefinition;
  readonly #parts: LibraryParts;
  readonly #splitter: Splitter;
  readonly #encodeWord: (word: string, ids: number[]) => void;
  readonly #decoder: TokenDecoder;
  readonly #specialIds: ReadonlySet<number>;
  readonly #roles: ReadonlyMap<Role, string>;
  /** The template for conversations with tools, where it is another. */
  readonly #toolTemplate: ChatTemplate | undefined;
  /** Finders of the tokens that are looked for before and after normalizing; with and without special ones. */
  readonly #finders: Readonly<Record<"all" | "plain", { before: AddedTokenFinder; after: AddedTokenFinder }>>;

  /**
   * @throws FormatError, LimitError when a file is malformed or contradicts itself; ChatTemplateError when the
   * template does not parse
   */
  static fromFiles(files: TokenizerFiles): Tokenizer {
    return new Tokenizer(files);
  }

  private constructor(files: TokenizerFiles) {
    const definition = readTokenizerJson(files.tokenizerJson);
    const { tokens, vocab, added, model, json } = definition;
    this.files = files;
    this.#definition = definition;
    this.vocabSize = tokens.length;
    this.specialTokens = new Map(added.filter(({ special }) => special).map(({ content, id }) => [content, id]));
    this.#specialIds = new Set(this.specialTokens.values());
    this.#parts = libraryParts(definition);
    this.#splitter = makeSplitter(json["pre_tokenizer"]);
    if (model.type === "BPE") {
      const encoder = new BpeEncoder(bpeModelOf(definition), this.#splitter.bytes);
      this.#encodeWord = (word, ids) => encoder.encode(word, ids);
    } else {
      this.#encodeWord = (word, ids) => {
        for (const id of this.#parts.encodeWord(word)) ids.push(id);
      };
    }
    this.#decoder = makeDecoder(definition, this.#parts.decode);
    this.#roles = readRoles(files.tokenizerConfig ?? {}, vocab);
    const { chatTemplate } = files;
    const templates = typeof chatTemplate === "string" ? { default: chatTemplate } : chatTemplate;
    const compile = (name: string): ChatTemplate | undefined =>
      templates && Object.hasOwn(templates, name) ? new ChatTemplate(templates[name]!) : undefined;
    this.chatTemplate = compile("default");
    this.#toolTemplate = compile("tool_use");
    const finders = (special: boolean) => {
      const wanted = added.filter((token) => special || !token.special);
      return {
        before: new AddedTokenFinder(
          wanted.filter((token) => !token.normalized),
          ({ content }) => content,
        ),
        after: new AddedTokenFinder(
          wanted.filter((token) => token.normalized),
          ({ content }) => this.#parts.normalize(content),
        ),
      };
    };
    this.#finders = { all: finders(true), plain: finders(false) };
  }

  /** Id of the token that begins a text, where tokenizer_config.json names one. */
  get bosId(): number | undefined {
    return this.#roleId("bos");
  }

  /** Id of the token that ends a text, where tokenizer_config.json names one. */
  get eosId(): number | undefined {
    return this.#roleId("eos");
  }

  /** Id of the token that fills up batches, where tokenizer_config.json names one. */
  get padId(): number | undefined {
    return this.#roleId("pad");
  }

  /** Id of the token for what the vocabulary cannot spell, where tokenizer_config.json names one. */
  get unkId(): number | undefined {
    return this.#roleId("unk");
  }

  #roleId(role: Role): number | undefined {
    const token = this.#roles.get(role);
    return token === undefined ? undefined : this.tokenToId(token);
  }

  tokenToId(token: string): number | undefined {
    return this.#definition.vocab.get(token);
  }

  /** The token as the vocabulary spells it; `decode` gives the text it stands for. */
  idToToken(id: number): string | undefined {
    return this.#definition.tokens[id];
  }

  /** The ids of a text. Half a surrogate pair, which is no character, is read as U+FFFD. */
  encode(text: string, { addSpecialTokens = true, allowSpecial = false }: EncodeOptions = {}): number[] {
    const ids: number[] = addSpecialTokens ? [...this.#parts.before] : [];
    this.#encodeInto(ids, text.replace(loneSurrogate, "\uFFFD"), allowSpecial, (stretch) => stretch);
    if (addSpecialTokens) ids.push(...this.#parts.after);
    return ids;
  }

  /** @param clean what to make of text between special tokens before anything else */
  #encodeInto(ids: number[], text: string, allowSpecial: boolean, clean: (stretch: string) => string): void {
    const { before, after } = this.#finders[allowSpecial ? "all" : "plain"];
    for (const outer of before.split(text, true)) {
      if (outer.token) {
        ids.push(outer.token.id);
        continue;
      }
      for (const inner of after.split(this.#parts.normalize(clean(outer.text)), outer.atStart)) {
        if (inner.token) ids.push(inner.token.id);
        else for (const word of this.#splitter.split(inner.text, inner.atStart)) this.#encodeWord(word, ids);
      }
    }
  }

  /**
   * The text of tokens, exactly: no spaces are tidied away. Ids that no token has, as padded embedding tables allow
   * models to give, stand for no text.
   * @throws ArgumentError when an id is not a whole number from 0
   */
  decode(ids: Iterable<number>, { skipSpecialTokens = false }: DecodeOptions = {}): string {
    const wanted: number[] = [];
    for (const id of ids) if (this.#gives(id, skipSpecialTokens)) wanted.push(id);
    return this.#decoder.decode(wanted);
  }

  /** Decodes tokens one by one; text comes out as soon as its characters are complete. */
  decodeStream({ skipSpecialTokens = false }: DecodeOptions = {}): TokenStream {
    const stream = this.#decoder.stream();
    return { push: (id) => (this.#gives(id, skipSpecialTokens) ? stream.push(id) : ""), end: () => stream.end() };
  }

  #gives(id: number, skipSpecialTokens: boolean): boolean {
    if (!Number.isInteger(id) || id < 0) throw new ArgumentError(`a token's id is a whole number from 0, not ${id}`);
    return !(skipSpecialTokens && this.#specialIds.has(id));
  }

  /**
   * The conversation as the text that the model was trained on. Where messages hold the text of special tokens, it
   * cannot be told from the template's own; `encodeChat` keeps the two apart.
   * @throws ChatTemplateError when there is no template, or it fails or refuses the conversation
   */
  applyChatTemplate(messages: readonly ChatMessage[], options: ChatOptions = {}): string {
    const { addGenerationPrompt = false, tools, variables, now } = options;
    const template = tools ? (this.#toolTemplate ?? this.chatTemplate) : this.chatTemplate;
    if (!template) {
      throw new ChatTemplateError(
        "the tokenizer has no chat template: it was not made for conversations, or chat_template.jinja is missing beside tokenizer.json",
      );
    }
    const special = Object.fromEntries([...this.#roles].map(([role, token]) => [`${role}_token`, token]));
    const own = { messages, add_generation_prompt: addGenerationPrompt, ...(tools && { tools }) };
    return template.render({ ...special, ...variables, ...own }, now);
  }

  /**
   * The ids of a conversation. What the template writes may be special tokens; what messages and tools hold is text,
   * also where it looks like a special token, unless `allowSpecial` is set.
   * @throws ChatTemplateError as `applyChatTemplate` does
   */
  encodeChat(
    messages: readonly ChatMessage[],
    options: ChatOptions & { readonly allowSpecial?: boolean } = {},
  ): number[] {
    const { allowSpecial = false, tools, ...rest } = options;
    const ids: number[] = [];
    const given = JSON.stringify([messages, tools ?? null]);
    const held = allowSpecial
      ? []
      : [...this.specialTokens.keys()].filter((token) => given.includes(JSON.stringify(token).slice(1, -1)));
    if (held.length === 0) {
      this.#encodeInto(ids, this.applyChatTemplate(messages, options), true, (stretch) => stretch);
      return ids;
    }
    // A character that means nothing breaks up the text of special tokens until they have been looked for.
    const breaker = unusedCharacter(given);
    const guard = <T>(value: T): T => breakUp(value, held, breaker);
    const text = this.applyChatTemplate(guard(messages), { ...rest, ...(tools && { tools: guard(tools) }) });
    this.#encodeInto(ids, text, true, (stretch) => stretch.replaceAll(breaker, "").replaceAll(escaped(breaker), ""));
    return ids;
  }
}

/** The special tokens that tokenizer_config.json names by role. @throws FormatError */
function readRoles(config: JsonObject, vocab: ReadonlyMap<string, number>): Map<Role, string> {
  const found = new Map<Role, string>();
  for (const role of roles) {
    const value = config[`${role}_token`] ?? null;
    if (value === null) continue;
    const token = isJsonObject(value) ? value["content"] : value;
    if (typeof token !== "string") throw new FormatError(`tokenizer_config.json: "${role}_token" is not a token`);
    if (!vocab.has(token)) {
      throw new FormatError(
        `tokenizer_config.json: "${role}_token" is ${JSON.stringify(token)}, which tokenizer.json does not have; the two files do not belong together`,
      );
    }
    found.set(role, token);
  }
  return found;
}

/** How `ensure_ascii` writes a character in JSON. */
const escaped = (char: string): string => `\\u${char.charCodeAt(0).toString(16)}`;

/** One of Unicode's noncharacters, kept for uses like this, that `text` does not have. */
function unusedCharacter(text: string): string {
  for (let code = 0xfdd0; code <= 0xfdef; code++) {
    const char = String.fromCharCode(code);
    if (!text.includes(char) && !text.toLowerCase().includes(escaped(char))) return char;
  }
  throw new ArgumentError("the conversation holds all of Unicode's noncharacters U+FDD0 to U+FDEF; leave one out");
}

/** A copy of `value` with `breaker` after the first character of each of `tokens` in its strings. */
function breakUp<T>(value: T, tokens: readonly string[], breaker: string): T {
  const walk = (inner: unknown): unknown => {
    if (typeof inner === "string") {
      return tokens.reduce((text, token) => text.replaceAll(token, token[0] + breaker + token.slice(1)), inner);
    }
    if (Array.isArray(inner)) return inner.map(walk);
    if (!isJsonObject(inner)) return inner;
    return Object.fromEntries(Object.entries(inner).map(([key, item]) => [walk(key), walk(item)]));
  };
  return walk(value) as T;
}
