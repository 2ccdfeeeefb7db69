import type { AddedToken } from "./tokenizer-json.ts";

/** A stretch of text, or an added token found in it. */
export interface Section {
  readonly text: string;
  readonly token: AddedToken | undefined;
  /** Whether it begins where the text does. */
  readonly atStart: boolean;
}

// JavaScript's own idea of whitespace differs from Unicode's, and from Hugging Face's, in two characters.
const whitespace = /\p{White_Space}/u;
const afterWord = /(?<=[\p{L}\p{N}_])/uy;
const beforeWord = /(?=[\p{L}\p{N}_])/uy;

function holdsAt(regex: RegExp, text: string, at: number): boolean {
  regex.lastIndex = at;
  return regex.test(text);
}

/** Finds added tokens in text: the leftmost first, and of several that begin there the longest. */
export class AddedTokenFinder {
  readonly #tokens: ReadonlyMap<string, AddedToken>;
  /** For each first character of a token, the lengths of those tokens, longest first. */
  readonly #lengths = new Map<number, number[]>();

  /** @param spelling what each token looks like in the text that is searched */
  constructor(tokens: readonly AddedToken[], spelling: (token: AddedToken) => string) {
    this.#tokens = new Map(tokens.map((token) => [spelling(token), token]));
    // One regular expression with all tokens would be shorter, but a long list of them takes the process down.
    const lengths = new Map<number, Set<number>>();
    for (const text of this.#tokens.keys()) {
      if (text === "") continue;
      const first = text.charCodeAt(0);
      const known = lengths.get(first);
      if (known) known.add(text.length);
      else lengths.set(first, new Set([text.length]));
    }
    for (const [first, known] of lengths)
      this.#lengths.set(
        first,
        [...known].sort((a, b) => b - a),
      );
  }

  /** Cuts `text` into the tokens found and what lies between them, in order; empty stretches are left out. */
  split(text: string, atStart: boolean): readonly Section[] {
    const sections: Section[] = [];
    let end = 0;
    const addText = (to: number): void => {
      if (to > end) sections.push({ text: text.slice(end, to), token: undefined, atStart: atStart && end === 0 });
    };
    for (let at = 0; this.#lengths.size > 0 && at < text.length; at++) {
      const token = this.#longestAt(text, at);
      if (!token) continue;
      const stop = at + token.length;
      const { lstrip, rstrip, singleWord } = token.added;
      if (singleWord && (holdsAt(afterWord, text, at) || holdsAt(beforeWord, text, stop))) {
        at = stop - 1;
        continue;
      }
      let from = at;
      while (lstrip && from > end && whitespace.test(text[from - 1]!)) from--;
      addText(from);
      sections.push({ text: text.slice(at, stop), token: token.added, atStart: false });
      end = stop;
      while (rstrip && end < text.length && whitespace.test(text[end]!)) end++;
      at = end - 1;
    }
    addText(text.length);
    return sections;
  }

  #longestAt(text: string, at: number): { added: AddedToken; length: number } | undefined {
    for (const length of this.#lengths.get(text.charCodeAt(at)) ?? []) {
      const added = this.#tokens.get(text.slice(at, at + length));
      if (added) return { added, length: Math.min(length, text.length - at) };
    }
    return undefined;
  }
}
