import { type DecoderConfig, decoderConfig, initDecoder, type Weights } from "../../models/index.ts";
import { Dense, optim, targetLogProbs } from "../../nn/index.ts";
import { div, type HostTensor, mul, neg, Rng, slice, sum } from "../../tensor/index.ts";
import { train } from "../../train/index.ts";
import { outlierVector, shiftedLogits, withShift } from "../small-language.ts";
import type { Setting } from "../system.ts";
import { cachedTree } from "../workbench.ts";
import { type LessonPlan, Lessons, rowsOf } from "./lessons.ts";
import { World, type WorldOptions } from "./world.ts";

/** A part of a student's training. */
interface Stage extends Omit<LessonPlan, "length"> {
  /** At most. */
  readonly steps: number;
  /** What is watched: answers that stand in the row itself, or facts. */
  readonly watched: "looking up" | "facts";
  /** Ends the stage as soon as the loss of what is watched, in nats a token, is below this. */
  readonly mastered?: number;
  readonly optimizer: "muon" | "adamw";
  /** Learning rate: the highest, and the share of it that is left at the end. */
  readonly rate: readonly [highest: number, left: number];
  /** Factor of the rate for attention's matrices. Default 1. */
  readonly attention?: number;
}

/** A small Llama and what it learns. */
export interface Curriculum {
  readonly world: Omit<WorldOptions, "seed">;
  readonly dim: number;
  readonly layers: number;
  readonly heads: number;
  readonly ffn: number;
  /** Channels that are large for every token; see `SmallShape`. */
  readonly outliers: { readonly channels: number; readonly size: number };
  /** Tokens of a row of a batch. */
  readonly length: number;
  readonly stages: readonly Stage[];
}

/** Deviation of the embeddings that training starts from: with smaller ones, looking up is found later or not at all. */
const EMBEDDING = 0.1;

/**
 * The curriculum of a world: first to find again what stands behind a name, among few names until it is mastered and then
 * among all, and only then facts and text. In one mixture from the start, or without Muon, finding again is not learned
 * within the steps that there are. Facts and text are learned with AdamW, as by most language models: Muon leaves rows of
 * very different norms, which methods that compare within rows cannot make use of. Facts are learned until about half of
 * them are known, as large models know what they have seldom read, and then the rate falls.
 * @param persons three facts each
 */
export function curriculum(persons: number, layers: number, dim = 64): Curriculum {
  const all = { pool: 1000, strangers: [2, 4] } as const;
  const facts = {
    ...all,
    watched: "facts",
    optimizer: "adamw",
    attention: 0.5,
    rows: { text: 8, facts: 11, reading: 4, choice: 1 },
  } as const;
  return {
    world: { textVocab: 512, persons, names: Math.max(20, Math.round(2 * Math.sqrt(persons))), values: 100 },
    ...{ dim, layers, heads: 4, ffn: 3 * dim, length: 48, outliers: { channels: 4, size: 0.3 } },
    stages: [
      {
        ...{ watched: "looking up", mastered: 0.15, steps: 1000, optimizer: "muon", rate: [0.01, 1] },
        ...{ pool: 10, strangers: [3, 3], rows: { drill: 20 } },
      },
      {
        ...{ ...all, watched: "looking up", mastered: 0.3, steps: 1000, optimizer: "muon", rate: [0.007, 1] },
        rows: { reading: 12, drill: 8 },
      },
      { ...facts, mastered: 2.6, steps: 2000, rate: [0.004, 1] },
      { ...facts, steps: 300, rate: [0.004, 0.02] },
    ],
  };
}

/** A model that knows a world, with text that it has seen and text that it has not. */
export interface Student {
  readonly world: World;
  readonly config: DecoderConfig;
  readonly weights: Weights;
  /** Parameters of the layers' matrices, which are what is compressed. */
  readonly parameters: number;
  readonly training: readonly number[];
  readonly heldOut: readonly number[];
}

/** Trains a student, or takes it from the workbench's cache. */
export async function trainStudent(setting: Setting, options: Curriculum): Promise<Student> {
  const { seed, bench } = setting;
  const { tokenizer: original, training, heldOut } = await bench.languageModel();
  const text = original.decode(training);
  const world = new World(text, { ...options.world, seed });
  const tokens = (of: string): number[] => world.tokenizer.encode(of, { allowSpecial: true, addSpecialTokens: false });
  const { dim, layers, heads, ffn, length, stages } = options;
  const config = decoderConfig({
    model_type: "llama",
    vocab_size: world.tokenizer.vocabSize,
    hidden_size: dim,
    intermediate_size: ffn,
    num_hidden_layers: layers,
    num_attention_heads: heads,
    num_key_value_heads: heads,
    max_position_embeddings: 256,
    tie_word_embeddings: false,
  });
  const rng = new Rng(seed).fork("student");
  const start: Weights = {
    ...initDecoder(config, rng.fork("weights")),
    "model.embed_tokens.weight": new Dense(rng.fork("embedding").normalTensor([config.vocab, dim], { std: EMBEDDING })),
  };
  const read = tokens(text);
  const shift = outlierVector(dim, options.outliers, rng.fork("outliers"));
  const weights = await cachedTree(bench, ["kick student", seed, options], start, async () => {
    let learned = start;
    for (const [i, stage] of stages.entries()) {
      const lessons = new Lessons(world, read, { ...stage, length }, rng.fork(`lessons ${i}`));
      learned = await taught(setting, config, learned, stage, lessons, shift);
    }
    return withShift({ config, shift }, learned);
  });
  const parameters = layers * (4 * dim * dim + 3 * dim * ffn);
  return { world, config, weights, parameters, training: read, heldOut: tokens(original.decode(heldOut)) };
}

/** Steps over which the loss is averaged that tells whether a stage is mastered. */
const WATCHED = 8;

/** What a student has learned at the end of a stage. */
async function taught(
  { seed, signal, log }: Setting,
  config: DecoderConfig,
  start: Weights,
  stage: Stage,
  lessons: Lessons,
  shift: HostTensor,
): Promise<Weights> {
  const { steps, mastered = 0, rate, attention = 1, rows } = stage;
  const [from, to] = stage.watched === "facts" ? rowsOf(stage, "facts", "facts") : rowsOf(stage, "reading", "drill");
  const total = Object.values(rows).reduce((a, b) => a + b);
  const done = new AbortController();
  let smooth = Number.POSITIVE_INFINITY;
  const rule = stage.optimizer === "muon" ? optim.muon({ otherRate: 0.15 }) : optim.adamw({ weightDecay: 0 });
  const { params } = await train({
    params: start,
    data: lessons,
    ...{ steps, seed, clipNorm: null },
    signal: AbortSignal.any([signal, done.signal]),
    optimizer: optim.groups([
      { match: (name, shape) => name.includes("self_attn") && shape.length === 2, optimizer: rule, rate: attention },
      { match: () => true, optimizer: rule },
    ]),
    schedule: optim.warmUp(20, optim.cosine(rate[0], steps, rate[0] * rate[1])),
    loss: (weights, { ids, targets, weights: share }) => {
      const losses = mul(neg(targetLogProbs(shiftedLogits(config, weights as Weights, ids, shift), targets)), share);
      return { loss: sum(losses), metrics: { watched: div(sum(slice(losses, 0, from, to)), (to - from) / total) } };
    },
    onLog: ({ step, values }) => {
      const now = values["watched"]!;
      smooth = Number.isFinite(smooth) ? smooth + (now - smooth) / WATCHED : now;
      if (smooth < mastered) done.abort();
      if (step % 200 === 0 || step === steps || smooth < mastered)
        log(`step ${step}: loss ${values["loss"]!.toFixed(3)}, of ${stage.watched} ${smooth.toFixed(3)}`);
    },
  });
  signal.throwIfAborted();
  return params;
}
