import * as library from "@huggingface/tokenizers";

/**
 * What is used of `@huggingface/tokenizers`, typed here because the package's own declarations import one another in
 * a way that Node's rules for modules do not resolve.
 */
export interface Pipeline {
  readonly normalizer: ((text: string) => string) | null;
  readonly pre_tokenizer: { readonly pattern?: RegExp | null } | null;
  readonly model: ((words: readonly string[]) => string[]) & {
    readonly tokens_to_ids: ReadonlyMap<string, number>;
    readonly unk_token_id?: number;
  };
  readonly post_processor:
    | ((tokens: readonly string[], pair: null, addSpecial: boolean) => { tokens: string[] })
    | null;
  readonly decoder: ((tokens: readonly string[]) => string) | null;
}

/** Makes the parts that a tokenizer.json describes; what it leaves out is null. Throws plain errors. */
export function makePipeline(
  json: Readonly<Record<string, unknown>>,
  config: Readonly<Record<string, unknown>> = {},
): Pipeline {
  const { Tokenizer } = library as unknown as { Tokenizer: new (json: object, config: object) => Pipeline };
  const nothing = { normalizer: null, pre_tokenizer: null, post_processor: null, decoder: null, added_tokens: [] };
  return new Tokenizer({ ...nothing, model: { type: "BPE", vocab: {}, merges: [] }, ...json }, config);
}
