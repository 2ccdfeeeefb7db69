import { encodeSafetensors } from "../../formats/index.ts";
import {
  type CompressedGuard,
  compressGuard,
  distillGuard,
  GuardCodec,
  type GuardModel,
  type GuardRecipe,
  predictAnswers,
  type StageReport,
} from "../../methods/index.ts";
import { decoderConfig, denseTensors, initDecoder, type Weights } from "../../models/index.ts";
import { storeWeights } from "../../nn/index.ts";
import { Rng } from "../../tensor/index.ts";
import type { AnsweredPrompt } from "../../train/index.ts";
import type { Check, Finding, Setting, System } from "../system.ts";
import { cachedTree, type LanguageModel } from "../workbench.ts";
import { agreement, divergence, largestGap, predictedByOnnx, speedOf } from "./comparisons.ts";
import { type GuardStories, guardStories, policy } from "./stories.ts";

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

/** Sizes of the two guards, and of what is left of the student. */
const sizes = {
  short: {
    teacher: { layers: 6, dim: 96, heads: 4, ffn: 384 },
    student: { layers: 6, dim: 64, heads: 4, ffn: 256 },
    left: { layers: 4, ffn: 192 },
    steps: 250,
  },
  full: {
    teacher: { layers: 6, dim: 128, heads: 4, ffn: 512 },
    student: { layers: 6, dim: 96, heads: 4, ffn: 384 },
    left: { layers: 4, ffn: 288 },
    steps: 600,
  },
} as const;

class Experiment {
  readonly #setting: Setting;
  readonly #stories: GuardStories;
  readonly #codec: GuardCodec;
  readonly #prompts: readonly AnsweredPrompt[];
  readonly #test: readonly AnsweredPrompt[];
  readonly #recipe: GuardRecipe;
  readonly #size: (typeof sizes)[keyof typeof sizes];

  constructor(setting: Setting, model: LanguageModel) {
    const { seed, full } = setting;
    this.#setting = setting;
    this.#stories = guardStories(model, new Rng(seed).fork("guard"), { test: full ? 1000 : 400, vocab: 2048 });
    this.#codec = new GuardCodec(policy, this.#stories.tokenizer);
    this.#prompts = this.#stories.training.map((example) => this.#codec.example(example));
    this.#test = this.#stories.test.map((example) => this.#codec.example(example));
    this.#size = full ? sizes.full : sizes.short;
    this.#recipe = { ...this.#size.left, group: 32, steps: this.#size.steps, rate: 1e-3, seed };
  }

  async run(): Promise<Finding> {
    const { full, seed, log } = this.#setting;
    const teacher = await this.#tuned("teacher");
    const student = await this.#tuned("student");
    const taught = await predictAnswers(teacher, this.#prompts);
    const ours = await this.#compressed("with the teacher", student, taught, this.#recipe);
    const [before, after] = [stage(ours, "student"), stage(ours, "packed")];

    const lessons = { on: [after.f1], off: [] as number[] };
    for (const again of full ? [seed, seed + 1] : [seed]) {
      const recipe = { ...this.#recipe, seed: again };
      if (again !== seed)
        lessons.on.push(stage(await this.#compressed("with the teacher, again", student, taught, recipe), "packed").f1);
      const alone = await this.#compressed("with labels alone", student, taught, { ...recipe, lambda: 0 });
      lessons.off.push(stage(alone, "packed").f1);
    }

    const bytes = {
      ours: await fileBytes(ours.weights),
      f32: await fileBytes(student.weights),
      f16: await fileBytes(halved(student.weights)),
    };
    const { vocab } = ours.config;
    const { trained: rounding, rounded: unlearned, whole } = ours.between;
    const predict = (model: GuardModel) => predictAnswers(model, this.#test);
    const [expected, learned] = [await predict(teacher), await predict(rounding)];
    const kl = {
      trained: divergence(expected, learned, vocab),
      atOnce: divergence(expected, await predict(unlearned), vocab),
    };
    const [full4, cut] = [await predict(whole), await predict(ours)];
    const head = { gap: largestGap(full4, cut, ours.ids, vocab), same: agreement(full4, cut, vocab) };
    const exported = agreement(await predictedByOnnx(ours, this.#test), learned, vocab);
    const speed = { student: await speedOf(student, this.#test), ours: await speedOf(ours, this.#test) };
    log(
      `ONNX file: the same verdict on ${(100 * exported).toFixed(1)}%; first token after ${speed.ours.firstToken.toFixed(1)} ms, student ${speed.student.firstToken.toFixed(1)} ms`,
    );

    const mean = (values: readonly number[]): number => values.reduce((a, b) => a + b, 0) / values.length;
    const [pruned, rounded, trained] = [
      stage(ours, "pruned"),
      stage(ours, "rounded at once"),
      stage(ours, "trained for 4 bits"),
    ];
    const checks: Check[] = [
      check("bytes of the file, and the student's in f32", bytes.ours, bytes.f32, (a, b) => a <= b / 6.5),
      check("bytes of the file, and the student's in f16", bytes.ours, bytes.f16, (a, b) => a <= b / 3.3),
      check("F1, and the student's", after.f1, before.f1, (a, b) => a >= b - 0.02),
      check("false positives, and the student's", after.falsePositives, before.falsePositives, (a, b) => a <= b + 0.03),
      check("F1, and the pruned model's before it learned", after.f1, pruned.f1, (a, b) => a >= b + 0.1),
      check("F1 trained for 4 bits, and rounded at once", trained.f1, rounded.f1, (a, b) => a >= b - 0.005),
      check("KL to the teacher trained for 4 bits, and rounded at once", kl.trained, kl.atOnce, (a, b) => a < b),
      check("F1 with distillation, and with labels alone", mean(lessons.on), mean(lessons.off), (a, b) => a >= b),
      check("gap of the kept logits when the head is cut", head.gap, 1e-5, (a, b) => a <= b),
      check("share of verdicts that stay when the head is cut", head.same, 1, (a, b) => a === b),
      check("share of verdicts that the ONNX file shares", exported, 0.98, (a, b) => a >= b),
    ];
    return {
      checks,
      metrics: { ...figures(after), kl: kl.trained, bytes: bytes.ours, ...speed.ours },
      baseline: { ...figures(before), kl: kl.atOnce, bytes: bytes.f32, ...speed.student },
      notes: [
        "a stand-in for a safety policy: passages of children's stories that speak of food, family, water or danger count as unsafe, told by words that belong to them",
        `${this.#prompts.length} passages to learn from, ${this.#test.length} from other stories to test on, half of each unsafe`,
        "neither guard was a language model before; both learn the verdicts from random weights",
      ],
    };
  }

  /** A guard of one of the two sizes, trained on the verdicts. */
  async #tuned(name: "teacher" | "student"): Promise<GuardModel> {
    const { seed, bench, signal, log } = this.#setting;
    const { layers, dim, heads, ffn } = this.#size[name];
    const config = decoderConfig({
      model_type: "llama",
      vocab_size: this.#stories.tokenizer.vocabSize,
      hidden_size: dim,
      intermediate_size: ffn,
      num_hidden_layers: layers,
      num_attention_heads: heads,
      max_position_embeddings: 256,
      rms_norm_eps: 1e-5,
      tie_word_embeddings: false,
    });
    const start = { config, weights: initDecoder(config, new Rng(seed).fork(name)) };
    const training = { steps: this.#size.steps, rate: 2e-3, seed };
    const key = ["llama-guard-int4", seed, this.#size[name], this.#prompts.length, training];
    const weights = await cachedTree<Weights>(bench, key, start.weights, async () => {
      const began = performance.now();
      const tuned = await distillGuard(start, null, this.#prompts, { ...training, signal });
      log(`${name}: ${training.steps} steps in ${((performance.now() - began) / 1000).toFixed(0)} s`);
      return tuned;
    });
    return { config, weights };
  }

  async #compressed(
    what: string,
    student: GuardModel,
    taught: readonly Float32Array[],
    recipe: GuardRecipe,
  ): Promise<CompressedGuard> {
    const { signal, log } = this.#setting;
    const data = { codec: this.#codec, training: this.#stories.training, test: this.#stories.test };
    const onStage = ({ stage: name, f1, falsePositives, auprc, parameters, milliseconds }: StageReport): void =>
      log(
        `${what}, ${name}: F1 ${f1.toFixed(3)}, false positives ${falsePositives.toFixed(3)}, AUPRC ${auprc.toFixed(3)}, ${(parameters / 1e6).toFixed(2)} M parameters, ${milliseconds.toFixed(2)} ms`,
      );
    return await compressGuard(student, taught, data, recipe, { onStage, signal });
  }
}

function stage({ stages }: CompressedGuard, name: StageReport["stage"]): StageReport {
  return stages.find((row) => row.stage === name)!;
}

const figures = ({ f1, falsePositives, auprc, parameters }: StageReport) => ({ f1, falsePositives, auprc, parameters });

/** Bytes of the file that weights are saved in. */
async function fileBytes(weights: Weights): Promise<number> {
  const { tensors, description } = storeWeights(weights);
  const metadata = new Map([["pare.weights", JSON.stringify(description)]]);
  return (await encodeSafetensors(Object.entries(tensors), metadata)).byteLength;
}

function halved(weights: Weights): Weights {
  return Object.fromEntries(Array.from(denseTensors(weights), ([name, tensor]) => [name, tensor.cast("f16")]));
}

function check(what: string, ours: number, baseline: number, bar: (ours: number, baseline: number) => boolean): Check {
  return { what, ours, baseline, holds: bar(ours, baseline) };
}
