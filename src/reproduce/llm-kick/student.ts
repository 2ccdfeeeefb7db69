import { type DecoderConfig, decoderConfig, decoderLogits, initDecoder, type Weights } from "../../models/index.ts";
import { optim, targetLogProbs } from "../../nn/index.ts";
import { mul, neg, Rng, sum } from "../../tensor/index.ts";
import { train } from "../../train/index.ts";
import type { Setting } from "../system.ts";
import { cachedTree } from "../workbench.ts";
import { type LessonPlan, Lessons, type Phase } from "./lessons.ts";
import { World, type WorldOptions } from "./world.ts";

/** A small Llama and what it learns. */
export interface Curriculum {
  readonly world: Omit<WorldOptions, "seed">;
  readonly dim: number;
  readonly layers: number;
  readonly heads: number;
  readonly ffn: number;
  readonly plan: LessonPlan;
  /** Learning rate until `turn`, and the highest after it. */
  readonly rates: readonly [first: number, second: number];
  /** The step from which facts are learned. */
  readonly turn: number;
  readonly steps: number;
}

/**
 * The curriculum of a world: first to find again what stands behind a name, among few names and then among all, and then
 * the facts. In one mixture from the start, or at a higher first rate, finding again is not learned within the steps that
 * there are.
 * @param persons three facts each
 * @param turn steps before the facts
 * @param facts steps with them
 */
export function curriculum(persons: number, layers: number, turn: number, facts: number): Curriculum {
  const phase = (share: number, pool: number, strangers: Phase["strangers"], rows: Phase["rows"]): Phase => ({
    until: Math.round(share * turn),
    ...{ pool, strangers, rows },
  });
  return {
    world: { textVocab: 512, persons, names: Math.max(20, Math.round(2 * Math.sqrt(persons))), values: 100 },
    ...{ dim: 64, layers, heads: 4, ffn: 192 },
    plan: {
      length: 48,
      phases: [
        phase(0.6, 10, [3, 3], { drill: 20 }),
        phase(0.72, 20, [2, 3], { reading: 10, drill: 10 }),
        phase(0.84, 50, [2, 3], { reading: 12, drill: 8 }),
        phase(1, 1000, [2, 4], { text: 4, reading: 12, drill: 4 }),
        { until: turn + facts, pool: 1000, strangers: [2, 4], rows: { text: 5, facts: 11, reading: 3, choice: 1 } },
      ],
    },
    rates: [0.007, 0.03],
    turn,
    steps: turn + facts,
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
  const { seed, bench, signal, log } = setting;
  const { tokenizer: original, training, heldOut } = await bench.languageModel();
  const text = original.decode(training);
  const world = new World(text, { ...options.world, seed });
  const tokens = (of: string): number[] => world.tokenizer.encode(of, { allowSpecial: true, addSpecialTokens: false });
  const { dim, layers, heads, ffn, plan, turn, steps, rates } = options;
  const config = decoderConfig({
    model_type: "llama",
    vocab_size: world.tokenizer.vocabSize,
    hidden_size: dim,
    intermediate_size: ffn,
    num_hidden_layers: layers,
    num_attention_heads: heads,
    num_key_value_heads: heads,
    max_position_embeddings: 256,
    tie_word_embeddings: true,
  });
  const rng = new Rng(seed).fork("student");
  const start = initDecoder(config, rng.fork("weights"));
  const read = tokens(text);
  const weights = await cachedTree(bench, ["kick student", seed, options], start, async () => {
    const result = await train({
      params: start,
      data: new Lessons(world, read, plan, rng.fork("lessons")),
      ...{ steps, seed, signal, clipNorm: null },
      optimizer: optim.muon({ otherRate: 0.15 }),
      schedule: twoRates(rates, turn, steps),
      loss: (params, { ids, targets, weights: share }) =>
        neg(sum(mul(targetLogProbs(decoderLogits(config, params as Weights, ids), targets), share))),
      onLog: ({ step, values, seconds }) => {
        if (step % 200 === 0)
          log(`step ${step} of ${steps}: loss ${values["loss"]!.toFixed(3)}, ${seconds.toFixed(0)} s`);
      },
    });
    signal.throwIfAborted();
    return result.params;
  });
  const parameters = layers * (4 * dim * dim + 3 * dim * ffn);
  return { world, config, weights, parameters, training: read, heldOut: tokens(original.decode(heldOut)) };
}

/** Up within 20 steps, level until `turn`, and from there to the second rate within 30 steps and down along a cosine. */
function twoRates([first, second]: Curriculum["rates"], turn: number, steps: number): optim.Schedule {
  const level = optim.warmUp(20, optim.constantRate(first));
  const fall = optim.cosine(1, steps - turn, 0.03);
  return (step) =>
    step < turn ? level(step) : (first + (second - first) * Math.min(1, (step - turn) / 30)) * fall(step - turn);
}
