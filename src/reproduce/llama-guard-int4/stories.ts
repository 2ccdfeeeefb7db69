import { GuardCodec, type GuardExample, type GuardPolicy } from "../../methods/index.ts";
import { ArgumentError, type Rng } from "../../tensor/index.ts";
import type { LanguageModel } from "../workbench.ts";

/**
 * A stand-in for what a guard looks for: three kinds of children's stories. A story is of a kind where words that mark it
 * are frequent in the whole of it; most of its passages have none of them, and must be known by what they speak of.
 */
const genres = {
  Forest: /\b(Green (Forest|Meadows?)|Smiling Pool|Laughing Brook|Peter Rabbit|Great (Forests?|World)|Old Mother)\b/g,
  Fairies: /\b(fair(y|ies)|goblins?|witch(es)?|el(f|ves)|magic|enchanted|brownies?|dolls?|queen|king|wizard)\b/gi,
  Sea: /\b(ships?|captain|pirates?|buccaneers?|sail(s|ed|ors?|ing)?|sea)\b/gi,
} as const;

/** Marks of a genre in a story of it: two at least, and one in so many characters. */
const MARK_EVERY = 2000;

export const policy: GuardPolicy = {
  categories: Object.keys(genres).map((name, i) => ({ code: `S${i + 1}`, name, text: "" })),
};

const END = "<|endoftext|>";
/** Shares of each story that are kept: its end to test on, and what comes before that to choose by. */
const [TEST, HELD_BACK] = [0.25, 0.15];
/** Tokens of a passage at most, so that batches are not filled up for the sake of a few. */
const LONGEST = 40;

export interface GuardStories {
  readonly training: readonly GuardExample[];
  /** To choose by what is not learned: rates of learning, a threshold. */
  readonly heldBack: readonly GuardExample[];
  readonly test: readonly GuardExample[];
  readonly codec: GuardCodec;
  /** Tokens of what the training passages are taken from, for language models to learn. */
  readonly text: readonly number[];
}

/**
 * Labelled passages of the texts that come with pare, half of them unsafe: those to learn from out of the first 60% of
 * each story, those to test on out of its last quarter, and those to choose by out of what lies between.
 * @throws ArgumentError for texts without stories of any of the genres
 */
export function guardStories({ tokenizer, training, heldOut }: LanguageModel, rng: Rng): GuardStories {
  const stories = [training, heldOut].flatMap((tokens) => tokenizer.decode(tokens).split(END));
  const parts = stories.map((story) => {
    const sentences = story
      .replace(/\s+/g, " ")
      .trim()
      .split(/(?<=[.!?]["']?)(?<!\bMrs?\.) (?=["'A-Z])/);
    const [held, tested] = [1 - TEST - HELD_BACK, 1 - TEST].map((share) => Math.ceil(share * sentences.length));
    return {
      genre: genreOf(story),
      training: sentences.slice(0, held),
      heldBack: sentences.slice(held, tested),
      test: sentences.slice(tested),
    };
  });
  const encoded = (text: string): number[] => tokenizer.encode(text, { addSpecialTokens: false });
  const examples = (part: "training" | "heldBack" | "test"): GuardExample[] =>
    balanced(
      parts.flatMap((story) =>
        passages(story[part])
          .filter((text) => encoded(text).length <= LONGEST)
          .map((text) => exampleOf(text, story.genre)),
      ),
      rng.fork(part),
    );
  return {
    training: examples("training"),
    heldBack: examples("heldBack"),
    test: examples("test"),
    codec: new GuardCodec(policy, tokenizer),
    text: parts.flatMap((story) => [tokenizer.eosId ?? 0, ...encoded(story.training.join(" "))]),
  };
}

/** The code of the genre whose marks are most frequent in a story, or null where they are rare. */
function genreOf(story: string): string | null {
  const counts = Object.values(genres).map((marks) => story.match(marks)?.length ?? 0);
  const most = Math.max(...counts);
  if (most < Math.max(2, story.length / MARK_EVERY)) return null;
  return policy.categories[counts.indexOf(most)]!.code;
}

/** Two to four neighbouring sentences, of 80 to 180 characters together. */
function passages(sentences: readonly string[]): string[] {
  return [2, 3, 4]
    .flatMap((count) => sentences.slice(count - 1).map((_, from) => sentences.slice(from, from + count).join(" ")))
    .filter((text) => text.length >= 80 && text.length <= 180);
}

function exampleOf(text: string, genre: string | null): GuardExample {
  const verdict = { safe: genre === null, categories: genre === null ? [] : [genre] };
  return { turns: [{ role: "user", text }], judge: "user", verdict };
}

/** As many safe ones as unsafe ones, in random order. */
function balanced(examples: readonly GuardExample[], rng: Rng): GuardExample[] {
  const [safe, unsafe] = [true, false].map((kind) =>
    rng.shuffle(examples.filter(({ verdict }) => verdict.safe === kind)),
  );
  const count = Math.min(safe!.length, unsafe!.length);
  if (count === 0)
    throw new ArgumentError(
      `the texts need stories of ${Object.keys(genres).join(", ")} and others, as those that come with pare have them`,
    );
  return Array.from({ length: count }, (_, i) => [safe![i]!, unsafe![i]!]).flat();
}
