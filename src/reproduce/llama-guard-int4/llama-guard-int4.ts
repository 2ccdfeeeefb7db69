import {
  type CompressedGuard,
  compressGuard,
  distillGuard,
  type GuardExample,
  type GuardMetrics,
  type GuardModel,
  type GuardRecipe,
  guardMetrics,
  predictAnswers,
  pruneGuard,
  w4a8,
} from "../../methods/index.ts";
import { denseTensors, type Weights } from "../../models/index.ts";
import { Rng } from "../../tensor/index.ts";
import type { AnsweredPrompt } from "../../train/index.ts";
import type { Check, Finding, Setting, System } from "../system.ts";
import { throughFile } from "../through-file.ts";
import type { LanguageModel } from "../workbench.ts";
import { agreement, divergence, largestGap, predictedByOnnx, scoresOf, speedOf } from "./comparisons.ts";
import { narrowLanguage, type Training, tunedGuard, type Widths } from "./guards.ts";
import { balancedJudge, balancedScores, judgement } from "./judges.ts";
import { type GuardStories, guardStories } from "./stories.ts";

/** A guard pruned, distilled, trained for 4 bits and cut at its head, against the guard that it was. */
export const llamaGuardInt4: System = {
  name: "Llama Guard 3-1B-INT4",
  family: "weights",
  summary:
    "makes a safety classifier several times smaller: fewer layers and neurons, a teacher, 4 bits, a head of 20 rows",
  paper: {
    title: "Llama Guard 3-1B-INT4: Compact and Efficient Safeguard for Human-AI Conversations",
    authors: "Fedorov et al.",
    year: 2024,
    url: "https://arxiv.org/abs/2411.17713",
  },
  file: "src/methods/weights/guard/compress.ts",
  command: "npx pare guard compress --recipe recipe.json",
  claim: "a guard of a seventh of the bytes is as good as the guard that it was made of",
  bar: "at most 1/6.5 of the student's bytes in f32 and 1/3.3 in f16; F1 and false positives within 0.02 and 0.03 of the student's and F1 0.1 above the pruned model's; training for 4 bits at least as good as rounding at once and nearer to the teacher; distillation no worse than labels; a cut head and an ONNX file that say the same",
  async experiment(setting) {
    return await new Experiment(setting, await setting.bench.languageModel()).run();
  },
};

interface Size {
  readonly teacher: Training;
  /** The student's language model, and how it is trained further after it has been cut out of the teacher's. */
  readonly language: Widths & Training;
  readonly student: Training;
  /** Learning rates that recovery is tried at, with the teacher and with labels alone. */
  readonly rates: readonly number[];
  readonly recipe: Omit<GuardRecipe, "seed" | "rate">;
}

const recipe = { layers: 3, ffn: 256, group: 128, lambda: 0.5, quantizedShare: 0.35 } as const;

const sizes: { readonly short: Size; readonly full: Size } = {
  short: {
    teacher: { steps: 160, rate: 1e-3, batch: 8, rank: 16 },
    language: { dim: 128, ffn: 384, steps: 40, rate: 2e-3, batch: 8 },
    student: { steps: 120, rate: 1e-3, batch: 8 },
    // The best of those that the full proof tries.
    rates: [5e-4],
    recipe: { ...recipe, steps: 320, calibration: 256 },
  },
  full: {
    teacher: { steps: 400, rate: 1e-3, batch: 8, rank: 16 },
    language: { dim: 128, ffn: 384, steps: 150, rate: 2e-3, batch: 8 },
    student: { steps: 300, rate: 1e-3, batch: 8 },
    rates: [5e-4, 1e-3],
    recipe: { ...recipe, steps: 640 },
  },
};

/** What recovery is taught with: labels and the teacher's logits, or labels alone. */
interface Teaching {
  readonly what: string;
  readonly taught: readonly Float32Array[] | null;
  readonly rate: number;
}

class Experiment {
  readonly #setting: Setting;
  readonly #model: LanguageModel;
  readonly #stories: GuardStories;
  readonly #test: readonly AnsweredPrompt[];
  readonly #size: Size;

  constructor(setting: Setting, model: LanguageModel) {
    this.#setting = setting;
    this.#model = model;
    this.#stories = guardStories(model, new Rng(setting.seed).fork("guard"));
    this.#test = this.#prompts(this.#stories.test);
    this.#size = setting.full ? sizes.full : sizes.short;
  }

  async run(): Promise<Finding> {
    const { full, seed } = this.#setting;
    const { codec, training, heldBack } = this.#stories;
    const [large, student] = [await this.#teacher(training), await this.#student(training)];
    const teacher = await balancedJudge(large, codec, heldBack);
    const predict = (model: GuardModel) => predictAnswers(model, this.#test);
    const expected = await judgement(teacher, codec, this.#test);
    const best = this.#shown("teacher", this.#metrics(scoresOf(expected, codec.first), this.#stories.test));
    const taught = await judgement(teacher, codec, this.#prompts(training));
    const guided = await this.#atBestRate(student, "with the teacher", taught);
    const alone = await this.#atBestRate(student, "with labels alone", null);
    const ours = await this.#compressed(student, guided, seed);
    const file = await throughFile(ours.weights);
    const final = { ...ours, weights: file.weights as Weights };
    const after = await this.#judged("with the teacher", final);
    const f1 = { on: [after.f1], off: [] as number[] };
    for (const again of full ? [seed, seed + 1] : [seed]) {
      const recovered = async (teaching: Teaching): Promise<number> =>
        (await this.#judged(teaching.what, await this.#compressed(student, teaching, again))).f1;
      if (again !== seed) f1.on.push(await recovered(guided));
      f1.off.push(await recovered(alone));
    }
    const late = full ? await this.#roundedLate(ours, guided, seed) : null;

    const halves = Object.fromEntries(
      Array.from(denseTensors(student.weights), ([name, tensor]) => [name, tensor.cast("f16")]),
    );
    const [f32, f16] = [await throughFile(student.weights), await throughFile(halves)];
    const { vocab } = ours.config;
    const learned = await predict(ours.between.trained);
    const kl = {
      trained: divergence(expected, learned, vocab),
      atOnce: divergence(expected, await predict(ours.between.rounded), vocab),
    };
    const later = late && {
      f1: (await this.#judged("rounded after as many steps", late)).f1,
      kl: divergence(expected, await predict(late), vocab),
    };
    const [whole, cut] = [await predict(ours.between.whole), await predict(final)];
    const head = { gap: largestGap(whole, cut, ours.ids, vocab), same: agreement(whole, cut, vocab) };
    const exported = agreement(await predictedByOnnx(final, this.#test), learned, vocab);
    const speed = { student: await speedOf(student, this.#test), ours: await speedOf(final, this.#test) };

    const { pruned, rounded, trained } = ours.between;
    const before = await this.#judged("student", student);
    const f1Of = async (what: string, model: GuardModel): Promise<number> => (await this.#judged(what, model)).f1;
    const grid = { trained: await f1Of("trained for 4 bits", trained), atOnce: await f1Of("rounded at once", rounded) };
    const prunedF1 = await f1Of("pruned", pruned);
    const mean = (values: readonly number[]): number => values.reduce((a, b) => a + b, 0) / values.length;
    const checks: Check[] = [
      check("bytes of the file, and the student's in f32", file.bytes, f32.bytes, (a, b) => a <= b / 6.5),
      check("bytes of the file, and the student's in f16", file.bytes, f16.bytes, (a, b) => a <= b / 3.3),
      check("F1, and the student's", after.f1, before.f1, (a, b) => a >= b - 0.02),
      check("false positives, and the student's", after.falsePositives, before.falsePositives, (a, b) => a <= b + 0.03),
      check("F1, and the pruned model's before it learned", after.f1, prunedF1, (a, b) => a >= b + 0.1),
      check("F1 trained for 4 bits, and rounded at once", grid.trained, grid.atOnce, (a, b) => a >= b - 0.005),
      check("KL to the teacher trained for 4 bits, and rounded at once", kl.trained, kl.atOnce, (a, b) => a < b),
      check("F1 with distillation, and with labels alone", mean(f1.on), mean(f1.off), (a, b) => a >= b),
      check("gap of the kept logits when the head is cut", head.gap, 1e-5, (a, b) => a <= b),
      check("share of verdicts that stay when the head is cut", head.same, 1, (a, b) => a === b),
      check("share of verdicts that the ONNX file shares", exported, 0.98, (a, b) => a >= b),
      ...(later
        ? [
            check(
              "F1 trained for 4 bits, and rounded after as many steps",
              grid.trained,
              later.f1,
              (a, b) => a >= b - 0.005,
            ),
            check("KL of the same two to the teacher", kl.trained, later.kl, (a, b) => a < b),
          ]
        : []),
    ];
    return {
      checks,
      metrics: { ...figures(after), kl: kl.trained, bytes: file.bytes, ...speed.ours },
      baseline: { ...figures(before), kl: kl.atOnce, bytes: f32.bytes, ...speed.student },
      notes: [
        ...(full
          ? [
              "divergences are on passages to test on: where training for 4 bits raises F1 it may yet lead away from the teacher on these, since it learns more of its own passages",
            ]
          : [
              "teacher and student have not learned to their end here, so that pruning costs less and the teacher knows no more than labels tell: the full proof trains both for longer",
            ]),
        "a stand-in for a safety policy: passages of two to four sentences out of children's stories of three kinds count as unsafe, those of other stories as safe",
        `${training.length} passages to learn from for all, ${this.#test.length} out of the last quarter of each story to test on. Half of all are unsafe; each guard's threshold is where it calls half of ${heldBack.length} other passages unsafe`,
        `the teacher is ${this.#model.name} with F1 ${best.f1.toFixed(3)}; the student's language model was cut out of it, to ${student.config.dim} of ${this.#model.config.dim} channels. It has read most of these stories before, without the verdicts`,
        `${ours.config.layers} layers of ${student.config.layers} stay, and ${ours.config.ffn} neurons of ${student.config.ffn} in each, where the paper keeps 12 of 16 and 6400 of 8192: with less taken away, so small a model lost too little to show that it recovers`,
      ],
    };
  }

  #prompts(examples: readonly GuardExample[]): AnsweredPrompt[] {
    return examples.map((example) => this.#stories.codec.example(example));
  }

  #teacher(examples: readonly GuardExample[]): Promise<GuardModel> {
    const { name, config, weights } = this.#model;
    return tunedGuard(this.#setting, "teacher", { config, weights }, this.#prompts(examples), this.#size.teacher, name);
  }

  async #student(examples: readonly GuardExample[]): Promise<GuardModel> {
    const { language, student } = this.#size;
    const base = await narrowLanguage(this.#setting, this.#model, this.#stories.text, language);
    const from = [this.#model.name, language];
    return await tunedGuard(this.#setting, "student", base, this.#prompts(examples), student, from);
  }

  async #judged(what: string, model: GuardModel): Promise<GuardMetrics> {
    return this.#shown(what, await this.#measured(model, this.#stories.test));
  }

  async #measured(model: GuardModel, examples: readonly GuardExample[]): Promise<GuardMetrics> {
    const { codec, heldBack } = this.#stories;
    return this.#metrics(await balancedScores(model, codec, heldBack, examples), examples);
  }

  #metrics(scores: readonly number[], examples: readonly GuardExample[]): GuardMetrics {
    return guardMetrics(
      scores,
      examples.map(({ verdict }) => !verdict.safe),
    );
  }

  #shown(what: string, metrics: GuardMetrics): GuardMetrics {
    this.#setting.log(`${what}: ${shown(metrics)}`);
    return metrics;
  }

  /** Teaching at the rate with which recovery comes out best on passages that nothing is learned or tested on. */
  async #atBestRate(student: GuardModel, what: string, taught: Teaching["taught"]): Promise<Teaching> {
    const { seed, signal, log } = this.#setting;
    const { rates } = this.#size;
    if (rates.length === 1) return { what, taught, rate: rates[0]! };
    const prompts = this.#prompts(this.#stories.training);
    const pruned = await pruneGuard(student, prompts, this.#recipe({ what, taught, rate: 0 }, seed));
    let best = { rate: 0, auprc: -1 };
    for (const rate of rates) {
      const recipe = this.#recipe({ what, taught, rate }, seed);
      const weights = await distillGuard(pruned, taught, prompts, { ...recipe, signal });
      const metrics = await this.#measured({ ...pruned, weights }, this.#stories.heldBack);
      log(`${what}, tried at ${rate}: ${shown(metrics)}`);
      if (metrics.auprc > best.auprc) best = { rate, auprc: metrics.auprc };
    }
    return { what, taught, rate: best.rate };
  }

  #recipe({ rate, taught }: Teaching, seed: number): GuardRecipe {
    return { ...this.#size.recipe, rate, seed, ...(taught === null && { lambda: 0 }) };
  }

  async #compressed(student: GuardModel, teaching: Teaching, seed: number): Promise<CompressedGuard> {
    const data = { codec: this.#stories.codec, training: this.#stories.training, test: [] };
    const options = { judge: [], signal: this.#setting.signal };
    return await compressGuard(student, teaching.taught ?? [], data, this.#recipe(teaching, seed), options);
  }

  /** The distilled model, trained on for as many steps as the one that learns 4 bits, but not for these; then rounded. */
  async #roundedLate(
    { config, between: { distilled } }: CompressedGuard,
    teaching: Teaching,
    seed: number,
  ): Promise<GuardModel> {
    const { steps, rate, group, quantizedShare, ...recipe } = this.#recipe(teaching, seed);
    const training = { ...recipe, steps: Math.round(quantizedShare! * steps), rate: rate / 5 };
    const options = { ...training, signal: this.#setting.signal };
    const weights = await distillGuard(distilled, teaching.taught, this.#prompts(this.#stories.training), options);
    return { config, weights: await w4a8(weights, group!) };
  }
}

const shown = ({ f1, falsePositives, auprc }: GuardMetrics): string =>
  `F1 ${f1.toFixed(3)}, false positives ${falsePositives.toFixed(3)}, AUPRC ${auprc.toFixed(3)}`;

const figures = ({ f1, falsePositives, auprc }: GuardMetrics) => ({ f1, falsePositives, auprc });

function check(what: string, ours: number, baseline: number, bar: (ours: number, baseline: number) => boolean): Check {
  return { what, ours, baseline, holds: bar(ours, baseline) };
}
