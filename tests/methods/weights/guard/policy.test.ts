import { describe, expect, it } from "vitest";
import { Tokenizer, trainBpe } from "../../../../src/formats/index.ts";
import {
  buildGuardPrompt,
  checkVerdictIds,
  fitGuardPrompt,
  GuardCodec,
  type GuardPolicy,
  type GuardTurn,
  guardMetrics,
  parseVerdict,
  VerdictParseError,
  verdictText,
} from "../../../../src/methods/index.ts";

const policy: GuardPolicy = {
  categories: [
    { code: "S1", name: "Food", text: "Cakes and pies." },
    { code: "S2", name: "Water", text: "" },
  ],
};
const said = (...texts: string[]): GuardTurn[] =>
  texts.map((text, i) => ({ role: i % 2 === 0 ? "user" : "agent", text }));

describe("a guard's prompt", () => {
  it("has the policy, the conversation, and whose turn is judged", () => {
    expect(buildGuardPrompt(policy, said("Hello.", "Cake?"), "agent")).toBe(
      "Task: is the last Agent message unsafe?\nUnsafe is:\nS1: Food. Cakes and pies.\nS2: Water.\nConversation:\nUser: Hello.\nAgent: Cake?\nVerdict on Agent:\n",
    );
  });

  it("refuses conversations that cannot be judged", () => {
    expect(() => buildGuardPrompt(policy, [], "user")).toThrow("an empty conversation cannot be judged");
    expect(() => buildGuardPrompt(policy, said("a", "b"), "user")).toThrow(
      "the last turn is the agent's, so that the user's cannot be judged",
    );
    expect(() => buildGuardPrompt({ categories: [] }, said("a"), "user")).toThrow("a policy needs categories");
    const odd = { categories: [{ code: "food", name: "", text: "" }] };
    expect(() => buildGuardPrompt(odd, said("a"), "user")).toThrow(
      `a category's code is a capital letter and digits, not "food"`,
    );
  });

  it("loses its oldest turns where it is too long, and never the policy", () => {
    const count = (text: string): number => text.length;
    const turns = said("first", "second", "third");
    const room = count(buildGuardPrompt(policy, turns.slice(1), "user"));
    const fitted = fitGuardPrompt(policy, turns, "user", { room, count });
    expect(fitted).toBe(buildGuardPrompt(policy, turns.slice(1), "user"));
    expect(() => fitGuardPrompt(policy, turns, "user", { room: 50, count })).toThrow(
      /the policy and the last turn alone take \d+ tokens, and the model has room for 50/,
    );
  });
});

describe("a verdict", () => {
  it("is written and read back", () => {
    for (const verdict of [
      { safe: true, categories: [] },
      { safe: false, categories: ["S1"] },
      { safe: false, categories: ["S1", "S2"] },
    ])
      expect(parseVerdict(verdictText(verdict, policy), policy)).toEqual(verdict);
    expect(parseVerdict("\n\nunsafe\n S2, S1 \n", policy)).toEqual({ safe: false, categories: ["S2", "S1"] });
  });

  it.each(["", "Safe", "safe-ish", "unsafe", "unsafe\n", "safe\nS1", "unsafe S1", "I cannot say", "unsafe\nS1\nS2"])(
    "that says %j is an error and never safe",
    (text) => {
      expect(() => parseVerdict(text, policy)).toThrow(VerdictParseError);
      expect(() => parseVerdict(text, policy)).toThrow(/a verdict is "safe", or "unsafe" with the codes/);
    },
  );

  it("names only categories of the policy", () => {
    expect(() => parseVerdict("unsafe\nS1,S9", policy)).toThrow(
      'the verdict "unsafe\\nS1,S9" names "S9", which the policy does not have; it has S1, S2',
    );
    expect(() => verdictText({ safe: false, categories: ["S3", "S1"] }, policy)).toThrow(
      "the policy has no category S3; it has S1, S2",
    );
    expect(() => verdictText({ safe: false, categories: [] }, policy)).toThrow("violates at least one category");
  });
});

describe("verdicts in tokens", () => {
  const texts = ["safe", "unsafe\nS1,S2", buildGuardPrompt(policy, said("Cake and water."), "user")];
  const tokenizer = Tokenizer.fromFiles({
    tokenizerJson: trainBpe(texts, { vocabSize: 300, specialTokens: ["<end>"], minFrequency: 1 }),
    tokenizerConfig: { bos_token: "<end>", eos_token: "<end>" },
  });
  const codec = new GuardCodec(policy, tokenizer);

  it("end with the token that ends texts, behind the prompt", () => {
    const verdict = { safe: false, categories: ["S2"] };
    const { ids, scored } = codec.example({ turns: said("Cake."), judge: "user", verdict });
    expect(tokenizer.decode(ids.slice(-scored, -1))).toBe("unsafe\nS2");
    expect(ids.at(-1)).toBe(tokenizer.eosId);
    expect(ids[0]).toBe(tokenizer.bosId);
    expect(tokenizer.decode(ids.slice(1, -scored))).toBe(buildGuardPrompt(policy, said("Cake."), "user"));
  });

  it("have all the tokens that any of them needs among those that a head keeps", () => {
    const ids = codec.ids();
    const examples = [[], ["S1"], ["S2"], ["S1", "S2"]].map((categories) => ({
      verdict: { safe: categories.length === 0, categories },
    }));
    expect(ids).toEqual([...new Set(ids)].sort((a, b) => a - b));
    expect(() => checkVerdictIds(codec, ids, examples)).not.toThrow();
    const { safe } = codec.first;
    expect(() =>
      checkVerdictIds(
        codec,
        ids.filter((id) => id !== safe),
        examples,
      ),
    ).toThrow(`verdicts need tokens that the head would lose: ${JSON.stringify(tokenizer.decode([safe]))} (${safe})`);
  });
});

describe("a guard's figures", () => {
  it("are F1 and false positives at 0.5, and the area under precision over recall", () => {
    const figures = guardMetrics([0.9, 0.8, 0.7, 0.4, 0.3], [true, false, true, true, false]);
    // Two of three found, one of two flagged wrongly: precision 2/3, recall 2/3.
    expect(figures.f1).toBeCloseTo(2 / 3, 12);
    expect(figures.falsePositives).toBe(0.5);
    // Recall rises by a third at the 1st, 3rd and 4th place, with precisions 1, 2/3 and 3/4.
    expect(figures.auprc).toBeCloseTo((1 + 2 / 3 + 3 / 4) / 3, 12);
  });

  it("take equal scores at once, in whatever order they come", () => {
    expect(guardMetrics([0.5, 0.5], [true, false]).auprc).toBe(0.5);
    expect(guardMetrics([0.5, 0.5], [false, true]).auprc).toBe(0.5);
  });

  it("need both kinds, and a label for each score", () => {
    expect(() => guardMetrics([1], [true])).toThrow("both safe and unsafe conversations are needed");
    expect(() => guardMetrics([1], [true, false])).toThrow("1 scores do not belong to 2 labels");
  });
});
