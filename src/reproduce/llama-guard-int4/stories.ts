import { Tokenizer, trainBpe } from "../../formats/index.ts";
import { buildGuardPrompt, type GuardExample, type GuardPolicy, verdictText } from "../../methods/index.ts";
import type { Rng } from "../../tensor/index.ts";
import type { LanguageModel } from "../workbench.ts";

/** A stand-in for what a guard looks for: harmless topics of children's stories, told by words that belong to them. */
const topics = {
  Food: /\b(cakes?|pies?|eat|ate|eating|eaten|hungry|flour|bread|dinner|supper|breakfast|lunch|cand(y|ies)|cook\w*|milk|sugar|nuts?|apples?|meat|honey|butter|eggs?|cabbage|carrots?|corn|cheese|soup|feast)\b/i,
  Family:
    /\b(mothers?|fathers?|mamma|papa|daddy|brothers?|sisters?|cousins?|grandfather|grandmother|grandma|grandpa)\b/i,
  Water:
    /\b(water|sea|boats?|river|pond|brook|shore|lake|swim\w*|swam|ships?|wet|rain\w*|island|fish\w*|waves?|ocean|beach|bath|pool)\b/i,
  Danger:
    /\b(afraid|frighten\w*|trouble|traps?|danger\w*|hurts?|catch\w*|caught|lost|fear\w*|scared?|guns?|kill\w*|hunters?|steal\w*|stole|robbers?|fire|burn\w*|bite|bit|fight\w*|fought|enem(y|ies)|cruel)\b/i,
} as const;

export const policy: GuardPolicy = {
  categories: Object.keys(topics).map((name, i) => ({ code: `S${i + 1}`, name, text: "" })),
};

const END = "<|endoftext|>";

/** Two or three neighbouring sentences, judged by what they speak of. */
function examplesOf(stories: readonly string[]): GuardExample[] {
  const labels = Object.values(topics);
  return stories.flatMap((story) => {
    const sentences = story.replace(/\s+/g, " ").split(/(?<=[.!?]["']?) (?=["'A-Z])/);
    const passages = [2, 3].flatMap((count) =>
      sentences.slice(count - 1).map((_, i) =>
        sentences
          .slice(i, i + count)
          .join(" ")
          .trim(),
      ),
    );
    return passages
      .filter((text) => text.length >= 40 && text.length <= 140)
      .map((text): GuardExample => {
        const categories = policy.categories.filter((_, i) => labels[i]!.test(text)).map(({ code }) => code);
        return {
          turns: [{ role: "user", text }],
          judge: "user",
          verdict: { safe: categories.length === 0, categories },
        };
      });
  });
}

export interface GuardStories {
  readonly training: readonly GuardExample[];
  readonly test: readonly GuardExample[];
  readonly tokenizer: Tokenizer;
}

/** Labelled pairs of sentences, half of them unsafe, those to test on from stories that no model has read. */
export function guardStories(
  model: LanguageModel,
  rng: Rng,
  size: { readonly test: number; readonly vocab: number },
): GuardStories {
  const stories = (tokens: readonly number[]): string[] => model.tokenizer.decode(tokens).split(END);
  const training = balanced(examplesOf(stories(model.training)), rng.fork("training"));
  const test = balanced(examplesOf(stories(model.heldOut)), rng.fork("test")).slice(0, size.test);
  const texts = training.map(
    ({ turns, judge, verdict }) => buildGuardPrompt(policy, turns, judge) + verdictText(verdict, policy),
  );
  const tokenizerJson = trainBpe(texts, { vocabSize: size.vocab, specialTokens: [END] });
  const tokenizer = Tokenizer.fromFiles({ tokenizerJson, tokenizerConfig: { bos_token: END, eos_token: END } });
  return { training, test, tokenizer };
}

/** As many safe ones as unsafe ones, in random order. */
function balanced(examples: readonly GuardExample[], rng: Rng): GuardExample[] {
  const [safe, unsafe] = [true, false].map((kind) =>
    rng.shuffle(examples.filter(({ verdict }) => verdict.safe === kind)),
  );
  const count = Math.min(safe!.length, unsafe!.length);
  return Array.from({ length: count }, (_, i) => [safe![i]!, unsafe![i]!]).flat();
}
