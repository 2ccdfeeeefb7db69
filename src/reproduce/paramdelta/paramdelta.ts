import { DecoderScorer, logitsAt, type ScoredSequence } from "../../evaluate/index.ts";
import type { MergeReport } from "../../methods/index.ts";
import { decoderLogits, type Weights } from "../../models/index.ts";
import { crossEntropy, optim } from "../../nn/index.ts";
import { add, Rng } from "../../tensor/index.ts";
import { drawnBatches, IGNORED, train } from "../../train/index.ts";
import type { Check, Finding, Setting, System } from "../system.ts";
import { cachedTree, type LanguageModel } from "../workbench.ts";
import { type LessonBatch, Lessons } from "./lessons.ts";
import { changed, shuffledChannels, transferred } from "./merging.ts";

/** A skill learned on one base, carried to another that has since read other text. */
export const paramdelta: System = {
  name: "ParamΔ",
  family: "weights",
  summary: "gives a new base model the skills of an old post-trained one by adding weights, without training",
  paper: {
    title: "Param-Delta for Direct (Weight) Mixing: Post-Train Large Language Model at Zero Cost",
    authors: "Cao, Wu, Prasad, Tian, Liu",
    year: 2025,
    url: "https://arxiv.org/abs/2504.21023",
  },
  file: "src/methods/weights/merge/merge.ts",
  command: "npx pare merge --base <old base> --post <post-trained> --new-base <new base> --out <folder>",
  claim:
    "the new base plus what post-training added to the old one keeps most of the skill and all of the new knowledge, as if the new base had been post-trained",
  bar: "at least 0.7 of the accuracy of post-training the new base itself, new text as good as the new base within 0.4 nats and 0.5 better than the old model, and next to nothing on an unrelated base, with a warning",
  async experiment(setting) {
    return await new Experiment(setting, await setting.bench.languageModel()).run();
  },
};

class Experiment {
  readonly #setting: Setting;
  readonly #model: LanguageModel;
  readonly #rng: Rng;
  readonly #lessons: Lessons;
  /** Steps and learning rates: the longer post-training goes on, the gentler, lest it go further from the base. */
  readonly #courses: { readonly post: Course; readonly read: Course };
  readonly #tests: Record<"questions" | "facts" | "news", readonly ScoredSequence[]>;

  constructor(setting: Setting, model: LanguageModel) {
    const { seed, full } = setting;
    this.#setting = setting;
    this.#model = model;
    this.#courses = {
      post: full ? { steps: 260, rate: 5e-4, windows: 4 } : { steps: 160, rate: 7e-4, windows: 3 },
      read: { steps: full ? 120 : 80, rate: 3e-4, windows: 2 },
    };
    this.#rng = new Rng(seed).fork("paramdelta");
    this.#lessons = new Lessons(model, this.#rng, { ships: full ? 30 : 20 });
    this.#tests = {
      questions: this.#lessons.questions(full ? 600 : 100, this.#rng.fork("questions")),
      facts: this.#lessons.facts(),
      news: this.#lessons.news(full ? 120 : 30, this.#rng.fork("unread reports")),
    };
  }

  async run(): Promise<Finding> {
    const { full } = this.#setting;
    const base = this.#model.weights;
    const post = await this.#postTrain("post-training the base", base);
    const newBase = await this.#read(base, this.#courses.read.rate);
    const direct = await this.#postTrain("post-training the new base", newBase);

    const old = await this.#score("post-trained", post);
    const untaught = await this.#score("new base", newBase);
    const reference = await this.#score("new base, post-trained", direct);
    const { report, weights } = await transferred(base, post, newBase, 1);
    const ours = await this.#score("ParamΔ", weights);
    const sweep = [ours.accuracy];
    for (const alpha of full ? [0.5, 0.75, 1.25] : [0.5, 1.25]) {
      const scaled = await transferred(base, post, newBase, alpha);
      sweep.push((await this.#score(`ParamΔ, alpha ${alpha}`, scaled.weights)).accuracy);
    }
    const nothing = await transferred(base, post, newBase, 0);
    const stranger = shuffledChannels(newBase, this.#model.config.dim, this.#rng.fork("stranger"));
    const unrelated = await transferred(base, post, stranger, 1);
    const onStranger = await this.#score("ParamΔ on an unrelated base", unrelated.weights);
    const farBase = await this.#read(base, 1e-3);
    const further = await transferred(base, post, farBase, 1);
    const onFarBase = await this.#score("ParamΔ on a base that moved further", further.weights);

    const best = Math.max(...sweep);
    const shift = ({ overall }: MergeReport): number => overall.updates[0]!.relative!;
    const checks: Check[] = [
      check(
        "accuracy, and that of post-training the new base",
        ours.accuracy,
        reference.accuracy,
        (a, b) => a >= 0.7 * b && b >= 0.9,
      ),
      check("accuracy, and that of the new base alone", ours.accuracy, untaught.accuracy, (a, b) => b <= 0.1 && a > b),
      check("nats on new text, and those of the post-trained model", ours.newText, old.newText, (a, b) => a <= b - 0.5),
      check("nats on new text, and those of the new base", ours.newText, untaught.newText, (a, b) => a <= b + 0.4),
      check(
        "facts of the new text in a chat, and those of the post-trained model",
        ours.facts,
        old.facts,
        (a, b) => a >= b + 0.2 || reference.facts < 0.5,
      ),
      check("accuracy, and the best over alpha", ours.accuracy, best, (a, b) => a >= b - 0.05),
      check("tensors that alpha 0 changes", changed(nothing.weights, newBase), 0, (a, b) => a === b),
      check(
        "accuracy on an unrelated base, and of post-training the new one",
        onStranger.accuracy,
        reference.accuracy,
        (a, b) => a <= 0.1 * b,
      ),
      check(
        "warnings of unrelated bases, here and there",
        report.warnings.length,
        unrelated.report.warnings.length,
        (a, b) => a === 0 && b > 0,
      ),
      check("accuracy, and that on a base that moved further", ours.accuracy, onFarBase.accuracy, (a, b) => a > b),
      check("how far the base moved, and that one", shift(report), shift(further.report), (a, b) => a < b),
    ];
    const { updates, pairs } = report.overall;
    return {
      checks,
      metrics: {
        ...ours,
        shift: updates[0]!.relative!,
        delta: updates[1]!.relative!,
        cosine: pairs[0]!.cosine,
        signConflicts: pairs[0]!.signConflicts,
      },
      baseline: { ...reference },
      notes: [
        `the skills: repeating two or three of ${this.#lessons.words} words, backwards too, and picking out the first or the last; tested on requests that were never taught with`,
        `the facts: which of 6 ports each of ${this.#tests.facts.length} ships comes from; post-training the new base gets ${reference.facts.toFixed(2)} of them right`,
        "the unrelated base computes what the new base does, with the channels of its residual stream in another order",
      ],
    };
  }

  /**
   * Teaches the skills, half of the loss on its answers and half on text like that of the model's training. All models
   * see the same batches.
   */
  #postTrain(what: string, weights: Weights): Promise<Weights> {
    return this.#train(what, weights, this.#courses.post, (rng) => this.#lessons.skill(rng));
  }

  /** Goes on training a base on the new text; at a low rate it stays close. */
  #read(weights: Weights, rate: number): Promise<Weights> {
    const course = { ...this.#courses.read, rate };
    return this.#train(`new text at a rate of ${rate}`, weights, course, (rng) => this.#lessons.reading(rng));
  }

  /** What training makes of weights, from the cache where it was made before. */
  async #train(what: string, weights: Weights, course: Course, lesson: (rng: Rng) => LessonBatch): Promise<Weights> {
    const { seed, bench } = this.#setting;
    const key = ["paramdelta 4", this.#model.name, seed, this.#tests.facts.length, this.#courses, what, course];
    return await cachedTree(bench, key, weights, () => this.#trained(what, weights, course, lesson));
  }

  async #trained(
    what: string,
    weights: Weights,
    { steps, rate, windows }: Course,
    lesson: (rng: Rng) => LessonBatch,
  ): Promise<Weights> {
    const { config } = this.#model;
    const { signal, log } = this.#setting;
    const run = await train({
      params: weights,
      data: drawnBatches(this.#rng.fork("batches"), (rng) => ({
        lesson: lesson(rng),
        replay: this.#lessons.replay(rng, windows),
      })),
      steps,
      loss: (params, batch) => {
        const logits = logitsAt({ config, weights: params }, batch.lesson);
        const lesson = crossEntropy(logits, batch.lesson.targets, { ignore: IGNORED });
        const replay = crossEntropy(decoderLogits(config, params, batch.replay.ids), batch.replay.targets);
        return { loss: add(lesson, replay), metrics: { lesson } };
      },
      optimizer: optim.adamw({ beta2: 0.95, weightDecay: 0 }),
      schedule: optim.warmUpStableDecay(rate, steps, { warmUpSteps: 5 }),
      signal,
    });
    signal.throwIfAborted();
    const { seconds, values } = run.log.at(-1)!;
    log(`${what}: ${steps} steps in ${seconds.toFixed(0)} s, loss ${values["lesson"]!.toFixed(3)} on it`);
    return run.params;
  }

  async #score(name: string, weights: Weights): Promise<Score> {
    const scorer = await DecoderScorer.open({ ...this.#model, weights });
    const right = async (asked: readonly ScoredSequence[]): Promise<number> =>
      (await scorer.score(asked)).filter(({ greedy }) => greedy).length / asked.length;
    const { questions, facts, news } = this.#tests;
    const logProbs = (await scorer.score(news)).flatMap((it) => [...it.logProbs]);
    const score = {
      accuracy: await right(questions),
      facts: await right(facts),
      newText: -logProbs.reduce((a, b) => a + b, 0) / logProbs.length,
    };
    await scorer.dispose();
    const shown = Object.entries(score).map(([key, value]) => `${key} ${value.toFixed(3)}`);
    this.#setting.log(`${name}: ${shown.join(", ")}`);
    return score;
  }
}

interface Course {
  readonly steps: number;
  readonly rate: number;
  /** Of the text that is replayed, in a batch. */
  readonly windows: number;
}

/** How a model does in the tests. */
interface Score extends Record<string, number> {
  /** Share of questions answered rightly. */
  readonly accuracy: number;
  readonly facts: number;
  /** Loss on unread reports, in nats a token. */
  readonly newText: number;
}

function check(what: string, ours: number, baseline: number, bar: (ours: number, baseline: number) => boolean): Check {
  return { what, ours, baseline, holds: bar(ours, baseline) };
}
