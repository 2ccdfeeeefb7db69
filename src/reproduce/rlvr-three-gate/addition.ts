import { type DecoderConfig, decoderConfig, decoderLogits, initDecoder, type Weights } from "../../models/index.ts";
import { crossEntropy, Dense, optim, targetLogProbs } from "../../nn/index.ts";
import { compile } from "../../runtime/index.ts";
import { HostTensor, Rng, spec, type Tensor } from "../../tensor/index.ts";
import {
  type BatchSource,
  type Completion,
  drawnBatches,
  type Prompt,
  type TokenBatch,
  train,
} from "../../train/index.ts";
import type { Setting } from "../system.ts";
import { cachedTree } from "../workbench.ts";

/** Sums of two digits, written `3+5=08.`. */
export interface Sum extends Prompt {
  /** The tokens of the right answer, the point included. */
  readonly answer: readonly number[];
}

const CHARACTERS = "0123456789+=.";
export const POINT = CHARACTERS.indexOf(".");
const IGNORED = -1;
/** Share of the base's training texts whose answer is right. */
const RIGHT = 0.4;

const tokens = (text: string): number[] => [...text].map((c) => CHARACTERS.indexOf(c));
const twoDigits = (n: number): string => `${n}`.padStart(2, "0");

/** All hundred sums. */
export const sums: readonly Sum[] = Array.from({ length: 100 }, (_, i) => {
  const [a, b] = [Math.floor(i / 10), i % 10];
  return { ids: tokens(`${a}+${b}=`), answer: tokens(`${twoDigits(a + b)}.`) };
});

/** 1 for the right answer, written as it should be. */
export function isRight({ answer }: Sum, { tokens: given }: Completion): number {
  return Number(given.length === answer.length && given.every((token, i) => token === answer[i]));
}

/** Random sums, `count` at a time. */
export const randomSums = (count: number, rng: Rng): BatchSource<readonly Sum[]> =>
  drawnBatches(rng, (next) => Array.from({ length: count }, () => next.choice(sums)));

/**
 * Sums with an answer that is right or random, as sequences whose loss is on the answer.
 * @param right how often the answer is the right one rather than a random number
 */
export const answeredSums = (count: number, right: number, rng: Rng): BatchSource<TokenBatch> =>
  drawnBatches(rng, (next) =>
    answered(
      Array.from({ length: count }, () => {
        const { ids, answer } = next.choice(sums);
        return { ids, answer: next.uniform() < right ? answer : tokens(`${twoDigits(next.integer(100))}.`) };
      }),
    ),
  );

function answered(texts: readonly Sum[]): TokenBatch {
  const length = texts[0]!.ids.length + texts[0]!.answer.length - 1;
  const ids = HostTensor.zeros("i64", [texts.length, length]);
  const targets = HostTensor.zeros("i64", [texts.length, length]);
  texts.forEach((text, row) => {
    const all = [...text.ids, ...text.answer];
    for (let i = 0; i < length; i++) {
      ids.set(row * length + i, all[i]!);
      targets.set(row * length + i, i + 1 < text.ids.length ? IGNORED : all[i + 1]!);
    }
  });
  return { ids, targets };
}

export const answerLoss = (config: DecoderConfig, weights: Weights, { ids, targets }: TokenBatch<Tensor>): Tensor =>
  crossEntropy(decoderLogits(config, weights, ids), targets, { ignore: IGNORED });

export const config = decoderConfig({
  model_type: "llama",
  vocab_size: CHARACTERS.length,
  hidden_size: 64,
  intermediate_size: 160,
  num_hidden_layers: 2,
  num_attention_heads: 4,
  num_key_value_heads: 4,
  max_position_embeddings: 16,
  tie_word_embeddings: false,
});

/** A model that knows how to add but was taught by texts that are wrong more often than not; cached. */
export async function baseModel({ seed, bench, signal, log }: Setting): Promise<Weights> {
  const rng = new Rng(seed).fork("addition");
  const steps = 1000;
  const start = startingWeights(rng.fork("weights"));
  return cachedTree(bench, ["addition", "unit", seed, config, steps, RIGHT], start, async () => {
    const { params, log: losses } = await train({
      params: start,
      data: answeredSums(128, RIGHT, rng.fork("texts")),
      steps,
      threads: 1,
      loss: (weights, batch) => answerLoss(config, weights as Weights, batch),
      optimizer: optim.adamw({ weightDecay: 0.01 }),
      schedule: optim.warmUp(50, optim.cosine(3e-3, steps)),
      signal,
    });
    signal.throwIfAborted();
    log(`seed ${seed}, base: loss ${losses.at(-1)!.values["loss"]!.toFixed(3)}`);
    return params;
  });
}

/**
 * Matrices normal with deviation `1 / sqrt(in)`, so that weights are large beside what a few hundred steps move them, as
 * those of large models are.
 */
function startingWeights(rng: Rng): Weights {
  return Object.fromEntries(
    Object.entries(initDecoder(config, rng)).map(([name, weight]) => {
      const [, width] = weight.shape;
      if (width === undefined) return [name, weight];
      return [name, new Dense(rng.fork(name).normalTensor(weight.shape, { std: 1 / Math.sqrt(width) }))];
    }),
  );
}

/** How well a model adds: how often its most likely answer, and an answer drawn from it, is right. Exact, over all sums. */
export async function accuracy(weights: Weights): Promise<{ greedy: number; sampled: number }> {
  const { ids, targets } = answered(sums);
  const prompt = sums[0]!.ids.length;
  const tokensSpec = spec("i64", [ids.shape[0]!, ids.shape[1]!]);
  await using program = await compile(
    (inputs, wanted) => {
      const logits = decoderLogits(config, weights, inputs);
      return { logits, logProbs: targetLogProbs(logits, wanted) };
    },
    [tokensSpec, tokensSpec],
    { threads: 1 },
  );
  const safe = HostTensor.from(
    BigInt64Array.from(targets.data as BigInt64Array, (t) => (t < 0n ? 0n : t)),
    {
      shape: targets.shape,
    },
  );
  const { logits, logProbs } = await program(ids, safe);
  let [greedy, sampled] = [0, 0];
  sums.forEach(({ answer }, row) => {
    let probability = 1;
    let best = true;
    answer.forEach((token, i) => {
      const at = row * ids.shape[1]! + prompt - 1 + i;
      probability *= Math.exp(logProbs.at(at));
      const scores = (logits.data as Float32Array).subarray(at * config.vocab, (at + 1) * config.vocab);
      best &&= scores.every((score) => score <= scores[token]!);
    });
    greedy += Number(best);
    sampled += probability;
  });
  return { greedy: greedy / sums.length, sampled: sampled / sums.length };
}
