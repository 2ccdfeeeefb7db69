import { DecoderScorer, type ScoredSequence } from "../evaluate/index.ts";
import { encodeSafetensors, memorySource, SafetensorsFile, type TensorFile } from "../formats/index.ts";
import { addition, Merge, type MergeReport } from "../methods/index.ts";
import { decoderLogits, denseTensors, type Weights } from "../models/index.ts";
import { crossEntropy, Dense, optim } from "../nn/index.ts";
import { add, HostTensor, Rng } from "../tensor/index.ts";
import { type BatchSource, type TokenBatch, tokenBatch, train } from "../train/index.ts";
import type { Check, Setting, System } from "./system.ts";
import type { LanguageModel } from "./workbench.ts";

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
  readonly #learned: readonly string[];
  readonly #questions: readonly ScoredSequence[];
  readonly #news: readonly ScoredSequence[];

  constructor(setting: Setting, model: LanguageModel) {
    const { seed, full } = setting;
    this.#setting = setting;
    this.#model = model;
    this.#rng = new Rng(seed).fork("paramdelta");
    const vocabulary = familiarWords(model, this.#rng.fork("words"));
    const tested = vocabulary.length >> 2;
    this.#learned = vocabulary.slice(tested);
    const asking = this.#rng.fork("questions");
    this.#questions = Array.from({ length: full ? 600 : 100 }, () => {
      const { ids } = this.#question(vocabulary.slice(0, tested), asking);
      return { ids, scored: 1 };
    });
    const telling = this.#rng.fork("unread reports");
    this.#news = Array.from({ length: full ? 120 : 30 }, () => {
      const ids = this.#report(telling);
      return { ids, scored: ids.length - 1 };
    });
  }

  async run() {
    const { full, log } = this.#setting;
    const base = this.#model.weights;
    const steps = { post: full ? 300 : 100, read: full ? 150 : 40 };
    const post = await this.#postTrain("post-training the base", base, steps.post);
    const newBase = await this.#read(base, steps.read);
    const direct = await this.#postTrain("post-training the new base", newBase, steps.post);

    const scored = async (name: string, weights: Weights): Promise<Score> => {
      const score = await this.#score(weights);
      log(`${name}: accuracy ${score.accuracy.toFixed(3)}, new text ${score.newText.toFixed(3)} nats a token`);
      return score;
    };
    const old = await scored("post-trained", post);
    const untaught = await scored("new base", newBase);
    const reference = await scored("new base, post-trained", direct);
    const { report, ...own } = await this.#transfer(base, post, newBase, 1);
    const ours = await scored("ParamΔ", own.weights);
    const sweep = [ours.accuracy];
    for (const alpha of full ? [0.5, 0.75, 1.25] : [0.5, 1.25]) {
      const { weights } = await this.#transfer(base, post, newBase, alpha);
      sweep.push((await scored(`ParamΔ, alpha ${alpha}`, weights)).accuracy);
    }
    const nothing = await this.#transfer(base, post, newBase, 0);
    const stranger = shuffledChannels(newBase, this.#model.config.dim, this.#rng.fork("stranger"));
    const unrelated = await this.#transfer(base, post, stranger, 1);
    const onStranger = await scored("ParamΔ on an unrelated base", unrelated.weights);

    const best = Math.max(...sweep);
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
      check("accuracy, and the best over alpha", ours.accuracy, best, (a, b) => a >= b - 0.05),
      check("tensors that alpha 0 changes", changed(nothing.weights, newBase), 0, (a, b) => a === b),
      check(
        "accuracy on an unrelated base, and on the new one",
        onStranger.accuracy,
        ours.accuracy,
        (a, b) => a <= 0.1 * b,
      ),
      check(
        "warnings of unrelated bases, here and there",
        report.warnings.length,
        unrelated.report.warnings.length,
        (a, b) => a === 0 && b > 0,
      ),
    ];
    const { updates, pairs } = report.overall;
    return {
      checks,
      metrics: {
        accuracy: ours.accuracy,
        newText: ours.newText,
        shift: updates[0]!.relative!,
        delta: updates[1]!.relative!,
        cosine: pairs[0]!.cosine,
        signConflicts: pairs[0]!.signConflicts,
      },
      baseline: { accuracy: reference.accuracy, newText: reference.newText },
      notes: [
        "the skill: repeating a word when asked to, tested on words that post-training never used",
        "the unrelated base computes what the new base does, with the channels of its residual stream in another order",
      ],
    };
  }

  /**
   * Teaches the skill, half of the loss on its answers and half on text like that of the model's training. All models
   * see the same batches.
   */
  #postTrain(what: string, weights: Weights, steps: number): Promise<Weights> {
    return this.#train(what, weights, { steps, rate: 1e-3 }, (rng) => {
      const asked = Array.from({ length: 32 }, () => this.#question(this.#learned, rng));
      const [{ ids: one }] = asked as [ScoredSequence];
      const length = one.length - 1;
      const batch = tokenBatch(
        asked.flatMap(({ ids }) => ids),
        asked.map((_, i) => i * one.length),
        length,
      );
      const answers = HostTensor.zeros("i64", batch.targets.shape);
      for (let i = 0; i < answers.size; i++) answers.set(i, i % length === length - 1 ? batch.targets.at(i) : IGNORED);
      return { ids: batch.ids, targets: answers };
    });
  }

  /** Goes on training a base on reports, at a low rate so that it stays close. */
  #read(weights: Weights, steps: number): Promise<Weights> {
    return this.#train("new text for the base", weights, { steps, rate: 3e-4 }, (rng) => {
      const text: number[] = [];
      while (text.length <= 4 * WINDOW) text.push(...this.#report(rng));
      return tokenBatch(
        text,
        [0, 1, 2, 3].map((i) => i * WINDOW),
        WINDOW,
      );
    });
  }

  async #train(
    what: string,
    weights: Weights,
    { steps, rate }: { readonly steps: number; readonly rate: number },
    lesson: (rng: Rng) => TokenBatch,
  ): Promise<Weights> {
    const { config, training } = this.#model;
    const replay = (rng: Rng): TokenBatch =>
      tokenBatch(training, rng.integers(2, training.length - WINDOW - 1), WINDOW);
    const { params, log } = await train({
      params: weights,
      data: drawn(this.#rng.fork("batches"), (rng) => ({ lesson: lesson(rng), replay: replay(rng) })),
      steps,
      loss: (params, batch) => {
        const lossOf = ({ ids, targets }: typeof batch.lesson) =>
          crossEntropy(decoderLogits(config, params, ids), targets, { ignore: IGNORED });
        return add(lossOf(batch.lesson), lossOf(batch.replay));
      },
      optimizer: optim.adamw({ beta2: 0.95, weightDecay: 0 }),
      schedule: optim.warmUpStableDecay(rate, steps, { warmUpSteps: 5 }),
      signal: this.#setting.signal,
    });
    this.#setting.signal.throwIfAborted();
    const last = log.at(-1)!;
    this.#setting.log(
      `${what}: ${steps} steps in ${last.seconds.toFixed(0)} s, loss ${last.values["loss"]!.toFixed(3)}`,
    );
    return params;
  }

  async #transfer(base: Weights, post: Weights, start: Weights, weight: number): Promise<Transfer> {
    const merge = new Merge(
      {
        start: await inMemory("new base", start),
        base: await inMemory("base", base),
        models: [{ name: "post-trained", file: await inMemory("post-trained", post), weight }],
      },
      addition,
    );
    const weights: Record<string, Dense | HostTensor> = {};
    for (const { name, load } of merge.tensors) {
      const tensor = await load();
      weights[name] = tensor.shape.length === 2 ? new Dense(tensor) : tensor;
    }
    return { weights, report: merge.report() };
  }

  async #score(weights: Weights): Promise<Score> {
    const scorer = await DecoderScorer.open({ ...this.#model, weights });
    const answers = await scorer.score(this.#questions);
    const news = await scorer.score(this.#news);
    await scorer.dispose();
    const logProbs = news.flatMap((it) => [...it.logProbs]);
    return {
      accuracy: answers.filter(({ greedy }) => greedy).length / answers.length,
      newText: -logProbs.reduce((a, b) => a + b, 0) / logProbs.length,
    };
  }

  /** A question with its answer, which is one token, at the end. */
  #question(vocabulary: readonly string[], rng: Rng): ScoredSequence {
    const { tokenizer } = this.#model;
    const word = rng.choice(vocabulary);
    const text = `Repeat the word:${word}\nIt is${word}`;
    return { ids: [tokenizer.bosId!, ...tokenizer.encode(text)], scored: 1 };
  }

  /** A line of news of a kind that the model has not read: where ships sail, each always from the same port. */
  #report(rng: Rng): number[] {
    const { tokenizer } = this.#model;
    const ship = rng.integer(ships.length);
    const text = `Ship ${ships[ship]} left port ${ports[ship % ports.length]} with ${rng.integer(90) + 10} tons of ${rng.choice(goods)} bound for ${rng.choice(ports)}.`;
    return [tokenizer.bosId!, ...tokenizer.encode(text)];
  }
}

/** Target of tokens that do not count. */
const IGNORED = -1;
/** Tokens of a window of text. */
const WINDOW = 64;

const ships = [
  "Arvo",
  "Belim",
  "Corsk",
  "Dunara",
  "Eltis",
  "Farqo",
  "Gimble",
  "Hestor",
  "Ivlan",
  "Jorund",
  "Kestri",
  "Lumo",
];
const ports = ["Marsk", "Nolby", "Ostrava", "Pellin", "Quorn", "Revik"];
const goods = ["salt", "copper", "timber", "wool", "coal", "barley", "glass", "oil"];

interface Score {
  /** Share of questions answered rightly. */
  readonly accuracy: number;
  /** Loss on unread reports, in nats a token. */
  readonly newText: number;
}

interface Transfer {
  readonly weights: Weights;
  readonly report: MergeReport;
}

function check(what: string, ours: number, baseline: number, bar: (ours: number, baseline: number) => boolean): Check {
  return { what, ours, baseline, holds: bar(ours, baseline) };
}

/** Words that the model has often read and that are one token, with the space before them, in random order. */
function familiarWords({ tokenizer, training }: LanguageModel, rng: Rng): string[] {
  const counts = new Map<string, number>();
  for (const [word] of tokenizer.decode(training).matchAll(/ [a-z]{3,}(?![a-z'])/g))
    counts.set(word, (counts.get(word) ?? 0) + 1);
  const familiar = [...counts].filter(([, count]) => count >= 8).map(([word]) => word);
  return rng.shuffle(familiar.filter((word) => tokenizer.encode(word, { addSpecialTokens: false }).length === 1));
}

/** Batches made with random numbers. */
function drawn<B>(start: Rng, make: (rng: Rng) => B): BatchSource<B> {
  let rng = start;
  return {
    next: () => make(rng),
    state: () => rng.toJSON(),
    restore(state) {
      rng = Rng.fromJSON(state);
    },
  };
}

async function inMemory(name: string, weights: Weights): Promise<TensorFile> {
  return await SafetensorsFile.open(memorySource(await encodeSafetensors(denseTensors(weights)), name));
}

/** How many tensors are not the same bit by bit. */
function changed(a: Weights, b: Weights): number {
  const others = denseTensors(b);
  const same = (x: Uint8Array, y: Uint8Array): boolean => x.every((byte, i) => byte === y[i]);
  return [...denseTensors(a)].filter(([name, tensor]) => !same(tensor.rawBytes(), others.get(name)!.rawBytes())).length;
}

/** The same function with the channels of the residual stream in another order: near to it in no tensor. */
function shuffledChannels(weights: Weights, dim: number, rng: Rng): Weights {
  const order = rng.permutation(dim);
  const writes = /(o_proj|down_proj)\.weight$/;
  return Object.fromEntries(
    Array.from(denseTensors(weights), ([name, tensor]) => {
      const [rows, columns] = tensor.shape.length === 2 ? (tensor.shape as [number, number]) : [1, tensor.size];
      const moved = HostTensor.zeros("f32", tensor.shape);
      const [from, to] = [tensor.data as Float32Array, moved.data as Float32Array];
      for (let row = 0; row < rows; row++)
        for (let column = 0; column < columns; column++) {
          const source = writes.test(name) ? order[row]! * columns + column : row * columns + order[column]!;
          to[row * columns + column] = from[source]!;
        }
      return [name, tensor.shape.length === 2 ? new Dense(moved) : moved];
    }),
  );
}
