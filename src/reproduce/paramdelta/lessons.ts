import type { ScoredSequence } from "../../evaluate/index.ts";
import type { Rng } from "../../tensor/index.ts";
import { answerBatch, type TokenBatch, tokenBatch } from "../../train/index.ts";
import type { LanguageModel } from "../workbench.ts";

/** Tokens of a window of text. */
export const WINDOW = 64;
/** Tokens of a prompt with its answer at most. */
const PROMPT = 24;
/** Tokens of a text to go on with, and of how it goes on. */
const [BEFORE, AFTER] = [8, 2];

/** What is taught and asked: a skill in a chat's form, and text of a kind that the model has not read. */
export class Lessons {
  readonly #model: LanguageModel;
  /** Words to repeat, those that are taught with and those that are asked for. */
  readonly #words: { readonly taught: readonly string[]; readonly asked: readonly string[] };
  /** Where each ship comes from: what only the new text says. */
  readonly #ships: readonly { readonly name: string; readonly port: string }[];

  constructor(model: LanguageModel, rng: Rng, { ships }: { readonly ships: number }) {
    this.#model = model;
    const words = familiarWords(model, rng.fork("words"));
    const asked = words.length >> 3;
    this.#words = { asked: words.slice(0, asked), taught: words.slice(asked) };
    const naming = rng.fork("ships");
    const names = beginnings.flatMap((begin) => endings.map((end) => begin + end));
    this.#ships = Array.from(naming.shuffle(names).slice(0, ships), (name) => ({ name, port: naming.choice(ports) }));
  }

  get taughtWords(): number {
    return this.#words.taught.length;
  }

  /** Requests for words that were never taught with, the answer at the end. */
  questions(count: number, rng: Rng): ScoredSequence[] {
    return Array.from({ length: count }, () => this.#repeat(rng.choice(this.#words.asked)));
  }

  /** What the new text says, asked for in the form of the chat: where each ship comes from. */
  facts(): ScoredSequence[] {
    return this.#ships.map(({ name, port }) => this.#goOn(this.#encode(`Ship ${name} left port`), this.#encode(` ${port}`)));
  }

  /** Unread lines of the new text, scored from their first token on. */
  news(count: number, rng: Rng): ScoredSequence[] {
    return Array.from({ length: count }, () => {
      const ids = this.#report(rng);
      return { ids, scored: ids.length - 1 };
    });
  }

  /** A batch of post-training: half asks for words, half for how a text of the model's training goes on. */
  skill(rng: Rng): TokenBatch {
    const { training } = this.#model;
    const asked = Array.from({ length: 32 }, () => this.#repeat(rng.choice(this.#words.taught)));
    const texts = Array.from({ length: 16 }, () => {
      const at = 1 + rng.integer(training.length - BEFORE - AFTER - 1);
      return this.#goOn(training.slice(at, at + BEFORE), training.slice(at + BEFORE, at + BEFORE + AFTER));
    });
    return answerBatch([...asked, ...texts], PROMPT);
  }

  /** A batch of the new text. */
  reading(rng: Rng): TokenBatch {
    const text: number[] = [];
    while (text.length <= 4 * WINDOW) text.push(...this.#report(rng));
    return tokenBatch(
      text,
      [0, 1, 2, 3].map((i) => i * WINDOW),
      WINDOW,
    );
  }

  /** A batch of text like that of the model's training, against forgetting. */
  replay(rng: Rng): TokenBatch {
    const { training } = this.#model;
    return tokenBatch(training, rng.integers(2, training.length - WINDOW - 1), WINDOW);
  }

  #repeat(word: string): ScoredSequence {
    return this.#chat(this.#encode(`Repeat the word:${word}`), this.#encode(word));
  }

  #goOn(text: readonly number[], rest: readonly number[]): ScoredSequence {
    return this.#chat([...this.#encode("Go on:\n"), ...text], rest);
  }

  #chat(request: readonly number[], answer: readonly number[]): ScoredSequence {
    const ids = [this.#model.tokenizer.bosId!, ...request, ...this.#encode("\nIt is"), ...answer];
    return { ids, scored: answer.length };
  }

  #encode(text: string): number[] {
    return this.#model.tokenizer.encode(text, { addSpecialTokens: false });
  }

  /** A line of news: a ship always comes from the same port, all else is by chance. */
  #report(rng: Rng): number[] {
    const { name, port } = rng.choice(this.#ships);
    const text = `Ship ${name} left port ${port} with ${rng.integer(90) + 10} tons of ${rng.choice(goods)} bound for ${rng.choice(ports)}.`;
    return [this.#model.tokenizer.bosId!, ...this.#encode(text)];
  }
}

const beginnings = ["Arv", "Bel", "Cor", "Dun", "Elt", "Far", "Gim", "Hest", "Iv", "Jor", "Kest", "Lum"];
const endings = ["o", "im", "sk", "ara", "is"];
const ports = ["Marsk", "Nolby", "Ostrava", "Pellin", "Quorn", "Revik"];
const goods = ["salt", "copper", "timber", "wool", "coal", "barley", "glass", "oil"];

/** Words of the model's text that are one token, with the space before them, in random order. */
function familiarWords({ tokenizer, training }: LanguageModel, rng: Rng): string[] {
  const counts = new Map<string, number>();
  for (const [word] of tokenizer.decode(training).matchAll(/ [a-z]{3,}(?![a-z'])/g))
    counts.set(word, (counts.get(word) ?? 0) + 1);
  const familiar = [...counts].filter(([, count]) => count >= 3).map(([word]) => word);
  return rng.shuffle(familiar.filter((word) => tokenizer.encode(word, { addSpecialTokens: false }).length === 1));
}
