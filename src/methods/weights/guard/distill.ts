import type { Weights } from "../../../models/index.ts";
import { crossEntropy, distillation, optim } from "../../../nn/index.ts";
import { ArgumentError, add, HostTensor, mul, Rng, type Tensor } from "../../../tensor/index.ts";
import { type AnsweredPrompt, type BatchSource, type LogEntry, train } from "../../../train/index.ts";
import { answerInputs, answerLogits, commonPrefix, type GuardModel, predictAnswers } from "./answers.ts";

/** What a teacher predicts for the answers of some prompts: logits `[scored, vocab]` by prompt, in their order. */
export type CachedLogits = readonly Float32Array[];

export interface DistillOptions {
  /** Share of the teacher in the loss; 0 leaves the labels alone. Default 0.7. */
  readonly lambda?: number;
  /** Both distributions are softened by it. Default 1. */
  readonly tau?: number;
  readonly steps: number;
  readonly rate: number;
  /** Prompts in a batch. Default 16. */
  readonly batch?: number;
  readonly seed?: number;
  /** Which parameters are trained, by path; default all. */
  readonly trainable?: (path: string) => boolean;
  readonly onLog?: (entry: LogEntry) => void;
  readonly signal?: AbortSignal;
}

/**
 * Trains a guard's weights, in whatever representation they are, on the tokens of verdicts and nothing else:
 * `(1 - lambda) * CE + lambda * tau^2 * KL(softmax(z_T / tau) || softmax(z_S / tau))`.
 * @param prompts with the verdicts that are right
 * @param teacher a guard of the same tokens, or what it predicts for these prompts; null: the verdicts alone
 * @throws ArgumentError where student and teacher have other vocabularies, and for options out of range
 */
export async function distillGuard<W extends Weights>(
  student: GuardModel & { readonly weights: W },
  teacher: GuardModel | CachedLogits | null,
  prompts: readonly AnsweredPrompt[],
  options: DistillOptions,
): Promise<W> {
  const { lambda = teacher ? 0.7 : 0, tau = 1, steps, rate, seed = 0, trainable, onLog, signal } = options;
  if (!(lambda >= 0 && lambda <= 1)) throw new ArgumentError(`lambda is a share from 0 to 1, not ${lambda}`);
  if (!(tau > 0)) throw new ArgumentError(`tau is above 0, not ${tau}`);
  if (lambda > 0 && !teacher) throw new ArgumentError(`a lambda of ${lambda} needs a teacher`);
  if (prompts.length === 0) throw new ArgumentError("there are no prompts to learn from");
  const logits = lambda > 0 ? await logitsOf(student, teacher!, prompts) : null;
  const { vocab } = student.config;
  const prefix = commonPrefix(prompts);
  const run = await train({
    params: student.weights,
    data: new VerdictBatches({ prompts, skipped: prefix.length, logits, vocab, batch: options.batch ?? 16, seed }),
    steps,
    seed,
    loss: (weights, batch) => {
      const predicted = answerLogits({ config: student.config, weights: weights as Weights }, batch, prefix);
      const counted = { weights: batch.counted as Tensor };
      const label = crossEntropy(predicted, batch.targets, counted);
      if (!batch.teacher) return label;
      const kl = distillation(predicted, batch.teacher, tau, counted);
      return { loss: add(mul(label, 1 - lambda), mul(kl, lambda)), metrics: { kl, label } };
    },
    optimizer: optim.adamw({ beta2: 0.95, weightDecay: 0.01 }),
    schedule: optim.warmUp(Math.ceil(steps / 20), optim.cosine(rate, steps, rate / 10)),
    ...(trainable && { trainable }),
    ...(onLog && { onLog }),
    ...(signal && { signal }),
  });
  signal?.throwIfAborted();
  return run.params;
}

/** @throws ArgumentError where the vocabularies are not of one size */
async function logitsOf(
  student: GuardModel,
  teacher: GuardModel | CachedLogits,
  prompts: readonly AnsweredPrompt[],
): Promise<CachedLogits> {
  const { vocab } = student.config;
  if ("config" in teacher) {
    if (teacher.config.vocab !== vocab)
      throw new ArgumentError(
        `the teacher has ${teacher.config.vocab} tokens and the student ${vocab}; distillation needs one tokenizer for both`,
      );
    return await predictAnswers(teacher, prompts);
  }
  const wrong =
    teacher.length === prompts.length ? prompts.findIndex(({ scored }, i) => teacher[i]!.length !== scored * vocab) : 0;
  if (wrong >= 0)
    throw new ArgumentError(
      `the teacher's logits are not those of these prompts: prompt ${wrong} of ${prompts.length} has others`,
    );
  return teacher;
}

/** One step's prompts. Places behind the verdicts' tokens are filled up and not counted. */
interface VerdictBatch<T = HostTensor> {
  readonly ids: T;
  /** `i64 [n]` */
  readonly rows: T;
  /** `i64 [n]` */
  readonly targets: T;
  /** `f32 [n]`: 1, or 0 where filled up. */
  readonly counted: T;
  /** `f32 [n, vocab]` */
  readonly teacher?: T;
}

/** What batches are drawn from. */
interface Lessons {
  readonly prompts: readonly AnsweredPrompt[];
  /** Tokens that all prompts begin with, and that batches leave out. */
  readonly skipped: number;
  readonly logits: CachedLogits | null;
  readonly vocab: number;
  readonly batch: number;
  readonly seed: number;
}

/** All prompts in random order, and then again in another. */
class VerdictBatches implements BatchSource<VerdictBatch> {
  readonly #from: Lessons;
  readonly #length: number;
  readonly #scored: number;
  #at = 0;
  #order: { readonly epoch: number; readonly indices: readonly number[] } | undefined;

  constructor(from: Lessons) {
    this.#from = from;
    this.#length = Math.max(...from.prompts.map(({ ids }) => ids.length - 1));
    this.#scored = Math.max(...from.prompts.map(({ scored }) => scored));
  }

  next(): VerdictBatch {
    const { logits, skipped, vocab, batch } = this.#from;
    const chosen = Array.from({ length: batch }, () => this.#index(this.#at++));
    const prompts = chosen.map((i) => this.#from.prompts[i]!);
    const { ids, rows } = answerInputs(prompts, this.#length, skipped);
    const n = batch * this.#scored;
    const filled = HostTensor.zeros("i64", [n]);
    filled.data.set(rows.data as never);
    const targets = HostTensor.zeros("i64", [n]);
    const counted = HostTensor.zeros("f32", [n]);
    const teacher = logits && HostTensor.zeros("f32", [n, vocab]);
    let at = 0;
    chosen.forEach((index, i) => {
      const { ids: tokens, scored } = prompts[i]!;
      teacher?.data.set(logits![index]! as never, at * vocab);
      for (const token of tokens.slice(-scored)) {
        targets.set(at, token);
        counted.set(at++, 1);
      }
    });
    return { ids, rows: filled, targets, counted, ...(teacher && { teacher }) };
  }

  #index(at: number): number {
    const { prompts, seed } = this.#from;
    const count = prompts.length;
    const epoch = Math.floor(at / count);
    if (this.#order?.epoch !== epoch)
      this.#order = { epoch, indices: new Rng(seed).fork(`epoch ${epoch}`).permutation(count) };
    return this.#order.indices[at % count]!;
  }

  state(): number {
    return this.#at;
  }

  restore(state: unknown): void {
    if (!Number.isSafeInteger(state)) throw new ArgumentError("the saved position in the data is damaged");
    this.#at = state as number;
  }
}
