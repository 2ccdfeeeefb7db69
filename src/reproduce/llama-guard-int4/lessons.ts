import type { GuardCodec, GuardExample } from "../../methods/index.ts";
import { type Judge, judgement } from "./judges.ts";

/** What a student's maker has to teach it with. */
export interface Lessons {
  /** The passages, each with its label or else the teacher's verdict. */
  readonly examples: readonly GuardExample[];
  /** What the teacher predicts for these verdicts, by passage: logits `[scored, vocab]`. */
  readonly taught: readonly Float32Array[];
}

/** Some labelled passages, and others whose labels are not looked at: the teacher's verdicts stand in for them. */
export async function lessonsFrom(
  teacher: Judge,
  codec: GuardCodec,
  labelled: readonly GuardExample[],
  others: readonly Pick<GuardExample, "turns" | "judge">[],
): Promise<Lessons> {
  const examples = [...labelled, ...(await judgedBy(teacher, codec, others))];
  const prompts = examples.map((example) => codec.example(example));
  return { examples, taught: await judgement(teacher, codec, prompts) };
}

/** Passages with the verdicts that a judge finds likeliest: safe, or unsafe in one category. */
async function judgedBy(
  judge: Judge,
  codec: GuardCodec,
  passages: readonly Pick<GuardExample, "turns" | "judge">[],
): Promise<GuardExample[]> {
  const codes = codec.policy.categories.map(({ code }) => code);
  const verdicts = codes.map((code) => codec.verdict({ safe: false, categories: [code] }));
  // The verdicts on categories are alike up to the number in the code.
  const parts = verdicts[0]!.findIndex((id, i) => verdicts.some((other) => other[i] !== id));
  const prompts = passages.map((passage) =>
    codec.example({ ...passage, verdict: { safe: false, categories: [codes[0]!] } }),
  );
  const predicted = await judgement(judge, codec, prompts);
  const { safe, unsafe } = codec.first;
  const { vocab } = judge.guard.config;
  return passages.map((passage, i) => {
    const logits = predicted[i]!;
    if (logits[safe]! >= logits[unsafe]!) return { ...passage, verdict: { safe: true, categories: [] } };
    const scores = verdicts.map((ids) => logits[parts * vocab + ids[parts]!]!);
    return { ...passage, verdict: { safe: false, categories: [codes[scores.indexOf(Math.max(...scores))]!] } };
  });
}
