import {
  type CompressedGuard,
  compressGuard,
  distillGuard,
  type GuardMetrics,
  type GuardModel,
  type GuardRecipe,
  guardMetrics,
  guardScores,
  predictAnswers,
  type StageReport,
  w4a8,
} from "../../methods/index.ts";
import { denseTensors, type Weights } from "../../models/index.ts";
import { Rng } from "../../tensor/index.ts";
import type { AnsweredPrompt } from "../../train/index.ts";
import type { Check, Finding, Setting, System } from "../system.ts";
import { throughFile } from "../through-file.ts";
import type { LanguageModel } from "../workbench.ts";
import { agreement, divergence, largestGap, predictedByOnnx, speedOf } from "./comparisons.ts";
import { narrowLanguage, type Training, tunedGuard, type Widths } from "./guards.ts";
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
  readonly recipe: Omit<GuardRecipe, "seed">;
}

const sizes: { readonly short: Size; readonly full: Size } = {
  short: {
    teacher: { steps: 200, rate: 5e-4, batch: 8 },
    language: { dim: 128, ffn: 384, steps: 100, rate: 2e-3, batch: 8 },
    student: { steps: 160, rate: 4e-4 },
    recipe: { layers: 4, ffn: 288, group: 32, steps: 320, rate: 1e-3, calibration: 256 },
  },
  full: {
    teacher: { steps: 300, rate: 4e-4 },
    language: { dim: 128, ffn: 512, steps: 300, rate: 2e-3, batch: 8 },
    student: { steps: 300, rate: 4e-4 },
    recipe: { layers: 4, ffn: 384, group: 32, steps: 500, rate: 1e-3 },
  },
};

class Experiment {
  readonly #setting: Setting;
  readonly #model: LanguageModel;
  readonly #stories: GuardStories;
  readonly #prompts: readonly AnsweredPrompt[];
  readonly #test: readonly AnsweredPrompt[];
  readonly #size: Size;

  constructor(setting: Setting, model: LanguageModel) {
    this.#setting = setting;
    this.#model = model;
    this.#stories = guardStories(model, new Rng(setting.seed).fork("guard"));
    const { codec, training, test } = this.#stories;
    this.#prompts = training.map((example) => codec.example(example));
    this.#test = test.map((example) => codec.example(example));
    this.#size = setting.full ? sizes.full : sizes.short;
  }

  async run(): Promise<Finding> {
    const { full, seed } = this.#setting;
    const [teacher, student] = [await this.#teacher(), await this.#student()];
    const taught = await predictAnswers(teacher, this.#prompts);
    const best = await this.#judged("teacher", teacher);
    const recipe = { ...this.#size.recipe, seed };
    const ours = await this.#compressed("with the teacher", student, taught, recipe);
    const lessons = { on: [stage(ours, "packed").f1], off: [] as number[] };
    for (const again of full ? [seed, seed + 1] : [seed]) {
      const other = { ...recipe, seed: again };
      if (again !== seed)
        lessons.on.push(stage(await this.#compressed("with the teacher, again", student, taught, other), "packed").f1);
      const alone = await this.#compressed("with labels alone", student, taught, { ...other, lambda: 0 });
      lessons.off.push(stage(alone, "packed").f1);
    }
    const late = await this.#roundedLate(ours, taught, recipe);

    const halves = Object.fromEntries(
      Array.from(denseTensors(student.weights), ([name, tensor]) => [name, tensor.cast("f16")]),
    );
    const [file, f32, f16] = [
      await throughFile(ours.weights),
      await throughFile(student.weights),
      await throughFile(halves),
    ];
    const final = { ...ours, weights: file.weights as Weights };
    const { vocab } = ours.config;
    const predict = (model: GuardModel) => predictAnswers(model, this.#test);
    const [expected, learned] = [await predict(teacher), await predict(ours.between.trained)];
    const kl = {
      trained: divergence(expected, learned, vocab),
      atOnce: divergence(expected, await predict(ours.between.rounded), vocab),
      late: divergence(expected, await predict(late), vocab),
    };
    const [whole, cut] = [await predict(ours.between.whole), await predict(final)];
    const head = { gap: largestGap(whole, cut, ours.ids, vocab), same: agreement(whole, cut, vocab) };
    const exported = agreement(await predictedByOnnx(final, this.#test), learned, vocab);
    const speed = { student: await speedOf(student, this.#test), ours: await speedOf(final, this.#test) };

    const [before, after] = [stage(ours, "student"), await this.#judged("read from its file", final)];
    const [pruned, rounded, trained] = [
      stage(ours, "pruned"),
      stage(ours, "rounded at once"),
      stage(ours, "trained for 4 bits"),
    ];
    const { f1: lateF1 } = await this.#judged("rounded after as many steps", late);
    const mean = (values: readonly number[]): number => values.reduce((a, b) => a + b, 0) / values.length;
    const checks: Check[] = [
      check("bytes of the file, and the student's in f32", file.bytes, f32.bytes, (a, b) => a <= b / 6.5),
      check("bytes of the file, and the student's in f16", file.bytes, f16.bytes, (a, b) => a <= b / 3.3),
      check("F1, and the student's", after.f1, before.f1, (a, b) => a >= b - 0.02),
      check("false positives, and the student's", after.falsePositives, before.falsePositives, (a, b) => a <= b + 0.03),
      check("F1, and the pruned model's before it learned", after.f1, pruned.f1, (a, b) => a >= b + 0.1),
      check("F1 trained for 4 bits, and rounded at once", trained.f1, rounded.f1, (a, b) => a >= b - 0.005),
      check("the same, rounded after as many steps", trained.f1, lateF1, (a, b) => a >= b - 0.005),
      check("KL to the teacher trained for 4 bits, and rounded at once", kl.trained, kl.atOnce, (a, b) => a < b),
      check("the same, rounded after as many steps", kl.trained, kl.late, (a, b) => a < b),
      check("F1 with distillation, and with labels alone", mean(lessons.on), mean(lessons.off), (a, b) => a >= b),
      check("gap of the kept logits when the head is cut", head.gap, 1e-5, (a, b) => a <= b),
      check("share of verdicts that stay when the head is cut", head.same, 1, (a, b) => a === b),
      check("share of verdicts that the ONNX file shares", exported, 0.98, (a, b) => a >= b),
    ];
    return {
      checks,
      metrics: { ...figures(after), kl: kl.trained, bytes: file.bytes, ...speed.ours },
      baseline: { ...figures(before), kl: kl.atOnce, bytes: f32.bytes, ...speed.student },
      notes: [
        "a stand-in for a safety policy: passages of two to four sentences out of children's stories of three kinds count as unsafe, those of other stories as safe",
        `${this.#prompts.length} passages to learn from, ${this.#test.length} from the last quarter of each story to test on, half of each unsafe`,
        `the teacher is ${this.#model.name} with F1 ${best.f1.toFixed(3)}; the student's language model was cut out of it, to ${ours.config.dim} of ${this.#model.config.dim} channels. It has read most of these stories before, without the verdicts`,
        ...(after.f1 < pruned.f1 + 0.1
          ? [
              `AUPRC of the student ${before.auprc.toFixed(3)} and of the pruned model ${pruned.auprc.toFixed(3)}: two layers of six go at little cost where a student is this small, so that there is less to recover than the bar asks for`,
            ]
          : []),
      ],
    };
  }

  #teacher(): Promise<GuardModel> {
    const { name, config, weights } = this.#model;
    return tunedGuard(this.#setting, "teacher", { config, weights }, this.#prompts, this.#size.teacher, name);
  }

  async #student(): Promise<GuardModel> {
    const { language, student } = this.#size;
    const base = await narrowLanguage(this.#setting, this.#model, this.#stories.text, language);
    return await tunedGuard(this.#setting, "student", base, this.#prompts, student, [this.#model.name, language]);
  }

  async #judged(what: string, model: GuardModel): Promise<GuardMetrics> {
    const { codec, test } = this.#stories;
    const unsafe = test.map(({ verdict }) => !verdict.safe);
    const metrics = guardMetrics(await guardScores(model, codec, test), unsafe);
    this.#setting.log(`${what}: ${shown(metrics)}`);
    return metrics;
  }

  async #compressed(
    what: string,
    student: GuardModel,
    taught: readonly Float32Array[],
    recipe: GuardRecipe,
  ): Promise<CompressedGuard> {
    const { signal, log } = this.#setting;
    const onStage = (row: StageReport): void =>
      log(
        `${what}, ${row.stage}: ${shown(row)}, ${(row.parameters / 1e6).toFixed(2)} M parameters, ${row.milliseconds.toFixed(2)} ms`,
      );
    return await compressGuard(student, taught, this.#stories, recipe, { onStage, signal });
  }

  /** The distilled model, trained on for as many steps as the one that learns 4 bits, but not for these; then rounded. */
  async #roundedLate(
    { config, between: { distilled } }: CompressedGuard,
    taught: readonly Float32Array[],
    { steps, rate, seed, group }: GuardRecipe,
  ): Promise<GuardModel> {
    const training = { steps: Math.round(0.3 * steps), rate: rate / 5, seed: seed!, signal: this.#setting.signal };
    const weights = await distillGuard(distilled, taught, this.#prompts, training);
    return { config, weights: await w4a8(weights, group!) };
  }
}

const shown = ({ f1, falsePositives, auprc }: GuardMetrics): string =>
  `F1 ${f1.toFixed(3)}, false positives ${falsePositives.toFixed(3)}, AUPRC ${auprc.toFixed(3)}`;

function stage({ stages }: CompressedGuard, name: StageReport["stage"]): StageReport {
  return stages.find((row) => row.stage === name)!;
}

const figures = ({ f1, falsePositives, auprc }: GuardMetrics) => ({ f1, falsePositives, auprc });

function check(what: string, ours: number, baseline: number, bar: (ours: number, baseline: number) => boolean): Check {
  return { what, ours, baseline, holds: bar(ours, baseline) };
}
