import { FormatError, LimitError } from "./errors.ts";
import { tokenizerLimits } from "./hf-limits.ts";
import type { TokenizerDefinition } from "./tokenizer-json.ts";
import { makePipeline, type Pipeline } from "./tokenizer-pipeline.ts";

/** The parts of a tokenizer that Hugging Face's library runs. */
export interface LibraryParts {
  normalize(text: string): string;
  /** Ids of a word, for every kind of model but BPE. @throws LimitError when the word is too long for it */
  encodeWord(word: string): readonly number[];
  /** Ids that the post-processor puts before and after a text. */
  readonly before: readonly number[];
  readonly after: readonly number[];
  /** Text of tokens one after the other. */
  decode(tokens: string[]): string;
}

/** Stands for the text while the post-processor shows what it puts around it; no tokenizer makes this token. */
const placeholder = "\uD800text";

/** @throws FormatError when the library refuses a part of the tokenizer */
export function libraryParts(definition: TokenizerDefinition): LibraryParts {
  const { json, model, vocab } = definition;
  const { pipeline, around } = make({
    normalizer: json["normalizer"] ?? null,
    post_processor: json["post_processor"] ?? null,
    decoder: json["decoder"] ?? null,
    // BPE is our own: the library's takes seconds for a megabyte.
    ...(model.type !== "BPE" && { model: withoutSpecials(definition) }),
  });
  const at = around.indexOf(placeholder);
  if (at < 0) throw new FormatError("tokenizer.json: the post_processor leaves the text out");
  const idOf = (token: string): number => {
    const id = vocab.get(token);
    if (id !== undefined) return id;
    throw new FormatError(`tokenizer.json: the post_processor adds ${JSON.stringify(token)}, which is no token`);
  };
  return {
    normalize: (text) => pipeline.normalizer?.(text) ?? text,
    encodeWord(word) {
      if (word.length > tokenizerLimits.wordLength) {
        throw new LimitError(
          `a word of ${word.length} characters is too long for a ${model.type} tokenizer, which takes up to ${tokenizerLimits.wordLength}; break it up`,
        );
      }
      const { tokens_to_ids: ids, unk_token_id: unknown } = pipeline.model;
      return pipeline.model([word]).flatMap((token) => ids.get(token) ?? unknown ?? []);
    },
    before: around.slice(0, at).map(idOf),
    after: around.slice(at + 1).map(idOf),
    decode: (tokens) => (pipeline.decoder ? pipeline.decoder(tokens) : tokens.join(" ")),
  };
}

/** The library's parts, and the placeholder with the tokens that the post-processor puts around it. */
function make(json: Readonly<Record<string, unknown>>): { pipeline: Pipeline; around: readonly string[] } {
  try {
    // The library reads the unknown token of word-level models from its second argument.
    const unknown = (json["model"] as { unk_token?: unknown } | undefined)?.unk_token;
    const pipeline = makePipeline(json, { unk_token: unknown });
    return { pipeline, around: pipeline.post_processor?.([placeholder], null, true).tokens ?? [placeholder] };
  } catch (cause) {
    throw new FormatError(`tokenizer.json: ${(cause as Error).message}`, { cause });
  }
}

/** The model with its special tokens spelled as no text can be, so that text never becomes one. */
function withoutSpecials({ model, added }: TokenizerDefinition): Record<string, unknown> {
  const special = new Set(added.filter((token) => token.special).map(({ content }) => content));
  const spelling = (token: unknown): unknown => (special.has(token as string) ? `\uD800${token}` : token);
  const vocab = model.json["vocab"];
  return {
    ...model.json,
    type: model.type === "WordLevel" ? undefined : model.type,
    unk_token: spelling(model.json["unk_token"]),
    vocab: Array.isArray(vocab)
      ? vocab.map(([piece, score]: [string, number]) => [spelling(piece), score])
      : Object.fromEntries(Object.entries(vocab as object).map(([token, id]) => [spelling(token), id])),
  };
}
