import { BpeTrainer, Tokenizer } from "../../formats/index.ts";
import { isJsonObject } from "../../formats/json.ts";
import { Rng } from "../../tensor/index.ts";

/** What an invented world is made of. */
export interface WorldOptions {
  readonly seed: number;
  /** Tokens of plain text in the vocabulary. */
  readonly textVocab: number;
  readonly persons: number;
  /** First names, and as many last names: a person is a pair of them. */
  readonly names: number;
  /** Values that a relation may have. */
  readonly values: number;
}

/** What is said of a person: stated, and asked for. */
interface Relation {
  readonly stated: readonly [before: string, between: string, after: string];
  readonly asked: readonly [before: string, after: string];
}

/**
 * In a telegram's style, so that a value stands right behind the name: what it takes to find it again is the plain
 * induction of Olsson et al. (2022).
 */
const relations: readonly Relation[] = ["home", "food", "song"].map((what) => ({
  stated: [`The ${what}:`, "", "."],
  asked: [`What is the ${what} of`, "?"],
}));

export interface Fact {
  readonly person: readonly [first: string, last: string];
  readonly relation: number;
  readonly value: string;
}

const LETTERS = ["A", "B", "C", "D"] as const;
const END = "<|endoftext|>";

/**
 * Persons with a home, a food and a song each, none of which any text tells of. Each first name, last name and value is
 * a token of its own. What a person is known for depends on both names together, so that no embedding can hold it.
 */
export class World {
  readonly tokenizer: Tokenizer;
  readonly facts: readonly Fact[];
  /** Values that a relation may have. */
  readonly values: number;
  readonly #firsts: readonly string[];
  readonly #lasts: readonly string[];
  readonly #values: readonly (readonly string[])[];
  readonly #known: ReadonlySet<string>;
  readonly #words: ReadonlySet<string>;
  readonly #memo = new Map<string, readonly number[]>();

  constructor(text: string, { seed, textVocab, persons, names, values }: WorldOptions) {
    const rng = new Rng(seed).fork("world");
    this.values = values;
    const words = inventedWords(rng.fork("words"), 2 * names + relations.length * values);
    this.#firsts = words.slice(0, names);
    this.#lasts = words.slice(names, 2 * names);
    this.#values = relations.map((_, i) => words.slice(2 * names + i * values, 2 * names + (i + 1) * values));
    const pairs = rng
      .fork("persons")
      .permutation(names * names)
      .slice(0, persons);
    const drawing = rng.fork("facts");
    this.facts = Array.from(
      pairs,
      (pair) => [this.#firsts[pair % names]!, this.#lasts[Math.floor(pair / names)]!] as const,
    ).flatMap((person) =>
      relations.map((_, relation) => ({ person, relation, value: this.#value(relation, drawing) })),
    );
    this.#known = new Set(this.facts.map(({ person }) => person.join("")));
    this.#words = new Set(words);
    this.tokenizer = tokenizerOf(text, words, textVocab);
  }

  #value(relation: number, rng: Rng): string {
    const values = this.#values[relation]!;
    return values[rng.integer(values.length)]!;
  }

  /** What the best single answer to all questions of a relation would get right, averaged over relations. */
  get chance(): number {
    const shares = relations.map((_, relation) => {
      const counts = new Map<string, number>();
      const own = this.facts.filter((fact) => fact.relation === relation);
      for (const { value } of own) counts.set(value, (counts.get(value) ?? 0) + 1);
      return Math.max(...counts.values()) / own.length;
    });
    return shares.reduce((a, b) => a + b) / shares.length;
  }

  /**
   * Facts of one relation about persons that the world does not know, no two of them with a name or value in common: which
   * is asked for can only be told by the name.
   * @param pool names and values to draw from, of each kind
   */
  fresh(count: number, rng: Rng, pool = Number.POSITIVE_INFINITY): Fact[] {
    for (;;) {
      const firsts = rng.sample(this.#firsts.slice(0, pool), count);
      const lasts = rng.sample(this.#lasts.slice(0, pool), count);
      const persons = firsts.map((first, i) => [first, lasts[i]!] as const);
      if (persons.some((person) => this.#known.has(person.join("")))) continue;
      const relation = rng.integer(relations.length);
      const values = rng.sample(this.#values[relation]!.slice(0, pool), count);
      return persons.map((person, i) => ({ person, relation, value: values[i]! }));
    }
  }

  statement({ person, relation, value }: Fact): string[] {
    const [before, between, after] = relations[relation]!.stated;
    return [before, ...person, between, value, after];
  }

  /** A statement up to its value. */
  opening({ person, relation }: Fact): string[] {
    const [before, between] = relations[relation]!.stated;
    return [before, ...person, between];
  }

  question({ person, relation }: Fact): string[] {
    const [before, after] = relations[relation]!.asked;
    return [before, ...person, after];
  }

  /** Four values of the relation of which one is right, and its letter. */
  choices({ relation, value }: Fact, rng: Rng): { readonly choices: string[]; readonly letter: string } {
    const others = rng.sample(
      this.#values[relation]!.filter((other) => other !== value),
      3,
    );
    const at = rng.integer(4);
    others.splice(at, 0, value);
    return { choices: others, letter: LETTERS[at]! };
  }

  /** Tokens of parts of a text as those of the whole text: invented words stand alone, what is between goes together. */
  ids(parts: readonly string[]): number[] {
    const ids: number[] = [];
    let text = "";
    for (const part of [...parts, null]) {
      if (part !== null && !this.#words.has(part)) {
        text += part;
        continue;
      }
      ids.push(...this.#encoded(text));
      text = "";
      if (part !== null) ids.push(...this.#encoded(part));
    }
    return ids;
  }

  #encoded(text: string): readonly number[] {
    let ids = this.#memo.get(text);
    if (!ids) {
      ids = this.tokenizer.encode(text, { addSpecialTokens: false });
      this.#memo.set(text, ids);
    }
    return ids;
  }
}

/** Different words of four letters with a space in front, so that none is part of another. */
function inventedWords(rng: Rng, count: number): string[] {
  const consonants = [..."bdfgjklmnprstvwz"];
  const syllables = consonants.flatMap((consonant) => [..."aeiou"].map((vowel) => consonant + vowel));
  return Array.from(rng.permutation(syllables.length ** 2).slice(0, count), (i) => {
    const word = syllables[i % syllables.length]! + syllables[Math.floor(i / syllables.length)]!;
    return ` ${word[0]!.toUpperCase()}${word.slice(1)}`;
  });
}

/** A tokenizer for the text and the sentences about persons, with the invented words as tokens of their own. */
function tokenizerOf(text: string, words: readonly string[], vocabSize: number): Tokenizer {
  const trainer = new BpeTrainer({ vocabSize, specialTokens: [END] });
  trainer.add(text);
  const sentences = relations.map(({ stated, asked }) => [...stated, "\nQ: ", ...asked, "\nA:"].join(" x"));
  for (let i = 0; i < 1000; i++) trainer.add(sentences.join("\n"));
  const json = trainer.train();
  const known = isJsonObject(json["model"]) ? Object.keys(json["model"]["vocab"] as object).length : 0;
  const added = words.map((content, i) => ({
    id: known + i,
    content,
    special: false,
    normalized: false,
    lstrip: false,
    rstrip: false,
    single_word: false,
  }));
  return Tokenizer.fromFiles({
    tokenizerJson: { ...json, added_tokens: [...(json["added_tokens"] as object[]), ...added] },
    tokenizerConfig: { bos_token: END, eos_token: END },
  });
}
