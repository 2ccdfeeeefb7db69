import type { Tokenizer } from "../formats/index.ts";
import type { DecoderConfig, Weights } from "../models/index.ts";
import { ArgumentError, flattenTree, type HostTensor, isHostTensor, mapTree, sameShape } from "../tensor/index.ts";

/** A language model with text that it was trained on, and text that it has never seen. */
export interface LanguageModel {
  readonly name: string;
  readonly config: DecoderConfig;
  readonly weights: Weights;
  readonly tokenizer: Tokenizer;
  /** Tokens of text like that of its training, to calibrate on. */
  readonly training: readonly number[];
  readonly heldOut: readonly number[];
}

/** Share of a text that is held out, at its end. */
const HELD_OUT = 0.1;

/** A model with a text of the user's. */
export function onText(model: Omit<LanguageModel, "training" | "heldOut">, text: string): LanguageModel {
  const all = tokensOf(model.tokenizer, text);
  const cut = Math.floor(all.length * (1 - HELD_OUT));
  return { ...model, training: all.slice(0, cut), heldOut: all.slice(cut) };
}

/** Texts in a row, which `<|endoftext|>` separates, each behind the token that begins texts where the model has one. */
export function tokensOf(tokenizer: Tokenizer, text: string): number[] {
  const first = tokenizer.bosId === undefined ? [] : [tokenizer.bosId];
  return text.split("<|endoftext|>").flatMap((one) => {
    const tokens = tokenizer.encode(one, { addSpecialTokens: false });
    return tokens.length > 0 ? [...first, ...tokens] : [];
  });
}

/** What experiments work on. Where it comes from is the platform's business. */
export interface Workbench {
  /** The model that comes with pare. */
  languageModel(): Promise<LanguageModel>;
  /**
   * Tensors that an experiment trains on the way to its question, kept under `key`: plain JSON that holds all that they
   * depend on. They are made when there are none under that key.
   */
  cached(key: unknown, make: () => Promise<Record<string, HostTensor>>): Promise<Record<string, HostTensor>>;
  /** A file of the folder of data sets, by its path in there; null where it is not there. Absent: there is no folder. */
  dataFile?(path: string): Promise<Uint8Array<ArrayBuffer> | null>;
}

/**
 * A tree of weights from the workbench's cache, or made and put there.
 * @param like a tree of the same structure and shapes, such as the one that training starts from
 */
export async function cachedTree<T>(bench: Workbench, key: unknown, like: T, make: () => Promise<T>): Promise<T> {
  const stored = await bench.cached(key, async () => flattenTree(await make(), isHostTensor));
  return mapTree(like, isHostTensor, (leaf, path) => {
    const found = stored[path];
    if (found && sameShape(found.shape, leaf.shape)) return found;
    throw new ArgumentError(`what is cached under ${JSON.stringify(key)} has no "${path}" of the shape asked for`);
  }) as T;
}
