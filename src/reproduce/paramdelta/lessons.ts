import type { ScoredSequence } from "../../evaluate/index.ts";
import { HostTensor, type Rng } from "../../tensor/index.ts";
import { answerBatch, IGNORED, type TokenBatch, tokenBatch } from "../../train/index.ts";
import type { LanguageModel } from "../workbench.ts";

/** Tokens of a window of text. */
export const WINDOW = 64;
/** Tokens of a prompt with its answer, the last one left out. */
const PROMPT = 13;
/** Tokens of a text to go on with, and of how it goes on. */
const [BEFORE, AFTER] = [5, 2];

/** What is asked for in a chat, of two words or three. */
const tasks: Readonly<Record<string, (words: readonly string[]) => readonly string[]>> = {
  Repeat: (words) => words,
  Backwards: (words) => words.toReversed(),
  "The first": (words) => words.slice(0, 1),
  "The last": (words) => words.slice(-1),
};

/** Tokens `i64 [batch, seq]` with the places of them all that are learned from, `i64 [n]`, and the tokens behind these. */
export interface LessonBatch extends TokenBatch {
  readonly rows: HostTensor;
}

/** The places of a batch that are learned from, so that the head is asked for no others, filled up to `count`. */
function scoredAlone({ ids, targets }: TokenBatch, count: number): LessonBatch {
  const rows = HostTensor.zeros("i64", [count]);
  const learned = HostTensor.from(Array<number>(count).fill(IGNORED), { dtype: "i64" });
  const places = targets.toArray().flatMap((target, place) => (target === IGNORED ? [] : [place]));
  for (const [i, place] of places.entries()) {
    rows.set(i, place);
    learned.set(i, targets.at(place));
  }
  return { ids, rows, targets: learned };
}

/** What is taught and asked: skills in a chat's form, and text of a kind that the model has not read. */
export class Lessons {
  readonly #model: LanguageModel;
  readonly #words: readonly string[];
  /** Requests of the tests, which are never taught with. */
  readonly #tested = new Set<string>();
  /** Where each ship comes from: what only the new text says. */
  readonly #ships: readonly { readonly name: string; readonly port: string }[];

  constructor(model: LanguageModel, rng: Rng, { ships }: { readonly ships: number }) {
    this.#model = model;
    this.#words = someWords(model);
    const naming = rng.fork("ships");
    const names = beginnings.flatMap((begin) => endings.map((end) => begin + end));
    this.#ships = Array.from(naming.shuffle(names).slice(0, ships), (name) => ({ name, port: naming.choice(ports) }));
  }

  get words(): number {
    return this.#words.length;
  }

  /** Requests for a test; from then on, no lesson has them. */
  questions(count: number, rng: Rng): ScoredSequence[] {
    return Array.from({ length: count }, () => {
      const { request, answer } = this.#draw(rng);
      this.#tested.add(request);
      return this.#chat(this.#encode(request), this.#encode(answer));
    });
  }

  /** What the new text says, asked for in the form of the chat: where each ship comes from. */
  facts(): ScoredSequence[] {
    return this.#ships.map(({ name, port }) =>
      this.#goOn(this.#encode(`Ship ${name} left port`), this.#encode(` ${port}`)),
    );
  }

  /** Unread lines of the new text, scored from their first token on. */
  news(count: number, rng: Rng): ScoredSequence[] {
    return Array.from({ length: count }, () => {
      const ids = this.#report(rng);
      return { ids, scored: ids.length - 1 };
    });
  }

  /** A batch of post-training: most ask for words, some for how a text of the model's training goes on. */
  skill(rng: Rng): LessonBatch {
    const { training } = this.#model;
    const asked = Array.from({ length: 24 }, () => {
      let { request, answer } = this.#draw(rng);
      while (this.#tested.has(request)) ({ request, answer } = this.#draw(rng));
      return this.#chat(this.#encode(request), this.#encode(answer));
    });
    const texts = Array.from({ length: 6 }, () => {
      const at = 1 + rng.integer(training.length - BEFORE - AFTER - 1);
      return this.#goOn(training.slice(at, at + BEFORE), training.slice(at + BEFORE, at + BEFORE + AFTER));
    });
    return scoredAlone(answerBatch([...asked, ...texts], PROMPT), 3 * asked.length + AFTER * texts.length);
  }

  /** A batch of the new text. */
  reading(rng: Rng): LessonBatch {
    const text: number[] = [];
    while (text.length <= 4 * WINDOW) text.push(...this.#report(rng));
    const starts = [0, 1, 2, 3].map((i) => i * WINDOW);
    return scoredAlone(tokenBatch(text, starts, WINDOW), starts.length * WINDOW);
  }

  /** A batch of text like that of the model's training, against forgetting. */
  replay(rng: Rng, windows: number): TokenBatch {
    const { training } = this.#model;
    return tokenBatch(training, rng.integers(windows, training.length - WINDOW - 1), WINDOW);
  }

  #draw(rng: Rng): { readonly request: string; readonly answer: string } {
    const task = rng.choice(Object.keys(tasks));
    const words = Array.from({ length: 2 + rng.integer(2) }, () => rng.choice(this.#words));
    return { request: `${task}:${words.join("")}\n=`, answer: tasks[task]!(words).join("") };
  }

  #goOn(text: readonly number[], rest: readonly number[]): ScoredSequence {
    return this.#chat([...this.#encode("Go on:\n"), ...text], rest);
  }

  #chat(request: readonly number[], answer: readonly number[]): ScoredSequence {
    return { ids: [this.#model.tokenizer.bosId!, ...request, ...answer], scored: answer.length };
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

/** How often the model's text must have a word for it to be asked for. */
const READ = 3;

/** Words that are one token with the space before them. */
function someWords({ tokenizer, training }: LanguageModel): string[] {
  const counts = new Map<string, number>();
  for (const [word] of tokenizer.decode(training).matchAll(/ [a-z]{3,}(?![a-z'])/g))
    counts.set(word, (counts.get(word) ?? 0) + 1);
  const read = [...counts].filter(([, count]) => count >= READ).map(([word]) => word);
  return read.filter((word) => tokenizer.encode(word, { addSpecialTokens: false }).length === 1);
}
