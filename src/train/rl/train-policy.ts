import type { Hosted } from "../../runtime/index.ts";
import { ArgumentError, HostTensor, Rng, randomKey } from "../../tensor/index.ts";
import type { BatchSource } from "../data.ts";
import { type StepLoop, type StepOptions, trainableOf, withTrained } from "../step.ts";
import type { Checkpoint, LogEntry, TrainOptions, TrainResult } from "../trainer.ts";
import { type AdvantageRule, type Group, groupRelative, type TokenWeights, tokenMean } from "./advantages.ts";
import { batchesOf, type Sample } from "./batch.ts";
import { NoLearningSignalError, PolicyDivergedError } from "./errors.ts";
import { clipped, type Objective } from "./objective.ts";
import type { Policy } from "./policy.ts";
import type { Completion, Prompt, Rollouts } from "./rollouts.ts";
import { compilePolicyStep, compileScorer, type Scorer, type StepBatch } from "./step.ts";

export interface TrainPolicyOptions<W, P extends Prompt, I>
  extends Omit<StepOptions<W, unknown>, "loss" | "params" | "example">,
    Pick<TrainOptions<W, unknown>, "schedule" | "seed" | "checkpoint" | "onLog" | "signal"> {
  readonly policy: Policy<W, P, I>;
  /** The prompts of each step. */
  readonly prompts: BatchSource<readonly P[]>;
  /** What a completion earned; a finite number. */
  readonly verify: (prompt: P, completion: Completion, step: number) => number | Promise<number>;
  /** Completions of each prompt, from 2. */
  readonly samples: number;
  /** Tokens of a completion at most, in each step. */
  readonly maxTokens: number | ((step: number) => number);
  /** Tokens that end a completion. */
  readonly stop: readonly number[];
  /** Steps in total: draws of completions with all updates made from them. */
  readonly steps: number;
  /** Of drawing, and of the policy that is trained. Default 1. */
  readonly temperature?: number;
  /** Default `groupRelative()`. */
  readonly advantages?: AdvantageRule<P>;
  /** Default `clipped()`. */
  readonly objective?: Objective;
  /** Default `tokenMean`. */
  readonly weights?: TokenWeights;
  /**
   * Adds this times the divergence KL(policy || starting weights), estimated at the drawn tokens (`k3`). With 0 it is
   * measured and logged only. Default: neither.
   */
  readonly kl?: number;
  /** Updates made from the completions of one step, on equal shares of them. Default 1, which is on-policy. */
  readonly updates?: number;
  /** What the completions are drawn with: the trained numbers, or the same rounded to bfloat16. Default `f32`. */
  readonly rolloutPrecision?: "f32" | "bf16";
  /** Steps in a row of which no group teaches anything that end the run. Default 10. */
  readonly patience?: number;
  /**
   * The reward of a completion that leaves nothing to learn. Where all completions earned it, `patience` steps in a row end
   * the run early instead of failing it. Default: there is none.
   */
  readonly solved?: number;
  /** Further numbers to log about what was drawn. */
  readonly measure?: (groups: readonly Group<P>[], step: number) => Readonly<Record<string, number>>;
  /** Measures the policy every so many steps and after the last; `rollouts` draws with the weights of the moment. */
  readonly evaluate?: {
    readonly every: number;
    run(now: {
      readonly params: W;
      readonly step: number;
      readonly rollouts: Rollouts<P>;
    }): Promise<Readonly<Record<string, number>>>;
  };
}

/**
 * Reinforcement learning from verifiable rewards: in each step several completions of each prompt are drawn and judged,
 * and their tokens become more likely or less by how they compare within their group. Logs `reward`, `length`,
 * `skipped` (the share of groups that teach nothing), `entropy`, the objective's metrics, and `kl` where asked for.
 * With a checkpoint store, a run that was stopped goes on with the very numbers that it would have had. A step in which
 * no group teaches anything changes nothing.
 * @throws ArgumentError for options that cannot be meant or a reward that is not finite; NoLearningSignalError when
 *   rewards have told nothing apart for `patience` steps; PolicyDivergedError when the loss is not finite
 */
export async function trainPolicy<W, P extends Prompt, I>(
  options: TrainPolicyOptions<W, P, I>,
): Promise<TrainResult<W>> {
  checkOptions(options);
  const { policy, kl, temperature = 1, objective = clipped() } = options;
  const trained = new Set(Object.keys(trainableOf(policy.weights, options.trainable)));
  const rollouts = await policy.rollouts((path) => trained.has(path), options);
  const opened: { dispose(): Promise<void> }[] = [rollouts];
  try {
    const loop = await compilePolicyStep({ ...options, objective, temperature, kl });
    opened.push(loop);
    const scorer = kl === undefined ? null : await compileScorer(policy, temperature, options);
    if (scorer) opened.push(scorer);
    return await new PolicyRun(options, rollouts, loop, scorer).go();
  } finally {
    for (const program of opened) await program.dispose();
  }
}

class PolicyRun<W, P extends Prompt, I> {
  readonly #options: TrainPolicyOptions<W, P, I>;
  readonly #rollouts: Rollouts<P>;
  readonly #loop: StepLoop;
  readonly #scorer: Scorer | null;
  readonly #log: LogEntry[] = [];
  readonly #began = performance.now();
  #step = 0;
  /** Steps in a row without a lesson. */
  #idle = 0;
  #saved: number | null = null;

  constructor(options: TrainPolicyOptions<W, P, I>, rollouts: Rollouts<P>, loop: StepLoop, scorer: Scorer | null) {
    this.#options = options;
    this.#rollouts = rollouts;
    this.#loop = loop;
    this.#scorer = scorer;
  }

  async go(): Promise<TrainResult<W>> {
    const { steps, checkpoint, evaluate, signal, prompts, policy } = this.#options;
    const resumed = checkpoint ? await checkpoint.store.latest(await this.#loop.state()) : null;
    if (resumed) await this.#restore(resumed);
    await this.#hand();
    let stopped: TrainResult<W>["stopped"] = "done";
    let solved = false;
    while (this.#step < steps && !solved) {
      const before = prompts.state();
      try {
        signal?.throwIfAborted();
        solved = await this.#advance();
      } catch (error) {
        if (!signal?.aborted || error !== signal.reason) throw error;
        prompts.restore(before);
        stopped = "aborted";
        break;
      }
      if (solved) stopped = "early";
      if (evaluate && (solved || this.#step === steps || this.#step % evaluate.every === 0)) await this.#evaluate();
      if (checkpoint && this.#step % checkpoint.every === 0) await this.#save();
    }
    if (checkpoint && this.#saved !== this.#step) await this.#save();
    return { params: withTrained(policy.weights, await this.#trained()), log: this.#log, step: this.#step, stopped };
  }

  /** One step, logged. @returns whether nothing is left to learn */
  async #advance(): Promise<boolean> {
    const { measure, schedule } = this.#options;
    const rng = new Rng(this.#options.seed ?? 0).fork(`step ${this.#step}`);
    const groups = await this.#draw(rng.fork("completions").integer(2 ** 32));
    const samples = this.#lessons(groups);
    const drawn = this.#summary(groups);
    if (samples.length === 0) {
      this.#step++;
      this.#write("train", { ...drawn, ...measure?.(groups, this.#step - 1) });
      return this.#idled(groups);
    }
    this.#idle = 0;
    const rate = schedule(this.#step);
    const learnt = await this.#update(samples, rate, rng);
    this.#step++;
    await this.#hand();
    this.#write("train", { ...drawn, ...learnt, rate, ...measure?.(groups, this.#step - 1) });
    return false;
  }

  /** Completions of the next prompts with their rewards. */
  async #draw(seed: number): Promise<Group<P>[]> {
    const { prompts, verify, samples, maxTokens, stop, temperature = 1, signal } = this.#options;
    const asked = prompts.next();
    const completions = await this.#rollouts.sample(asked, {
      samples,
      maxTokens: typeof maxTokens === "number" ? maxTokens : maxTokens(this.#step),
      stop,
      temperature,
      seed,
      signal,
    });
    const groups: Group<P>[] = [];
    for (const [i, prompt] of asked.entries()) {
      const rewards: number[] = [];
      for (const [sample, completion] of completions[i]!.entries()) {
        const reward = await verify(prompt, completion, this.#step);
        if (!Number.isFinite(reward))
          throw new ArgumentError(
            `the verifier gave sample ${sample} of prompt ${i} in step ${this.#step + 1} the reward ${reward}; rewards must be finite numbers`,
          );
        rewards.push(reward);
      }
      groups.push({ prompt, completions: completions[i]!, rewards });
    }
    return groups;
  }

  /** The completions of groups that teach something, with what their tokens count. */
  #lessons(groups: readonly Group<P>[]): Sample<P>[] {
    const { advantages = groupRelative(), weights = tokenMean, samples } = this.#options;
    const kept = groups.flatMap((group) => {
      const given = advantages(group);
      if (!given) return [];
      return group.completions.map((completion, i) => {
        const advantage = given[i]!;
        const each = typeof advantage === "number" ? completion.tokens.map(() => advantage) : advantage;
        return { prompt: group.prompt, completion, advantages: each };
      });
    });
    const counts = weights(
      kept.map(({ completion }) => completion.tokens.length),
      groups.length * samples,
    );
    return kept.map((sample, i) => ({ ...sample, weight: counts[i]! }));
  }

  /** Updates on shares of the samples; the mean of what they report. */
  async #update(samples: readonly Sample<P>[], rate: number, rng: Rng): Promise<Record<string, number>> {
    const { updates = 1, accumulate = 1, policy } = this.#options;
    const order = updates === 1 ? samples : rng.fork("order").shuffle([...samples]);
    const share = Math.ceil(order.length / updates);
    const results: Record<string, number>[] = [];
    for (let start = 0; start < order.length; start += share) {
      const own = order.slice(start, start + share);
      // Weights were given out over all samples, of which this update sees a part.
      const scaled = own.map((sample) => ({ ...sample, weight: (sample.weight * order.length) / own.length }));
      const batches: StepBatch<HostTensor, Hosted<I> | object>[] = [];
      for (const { batch, prompts } of batchesOf(scaled, accumulate)) {
        const inputs = policy.inputs?.of(prompts) ?? {};
        const { ids, targets } = batch;
        const reference = await this.#scorer?.({ ids, targets }, inputs as never);
        batches.push({ tokens: batch, inputs, ...(reference && { reference }) });
      }
      const key = randomKey(rng.fork(`update ${start}`).integer(2 ** 32));
      const result = await this.#loop.run(batches as never, HostTensor.from(rate), key);
      const values = Object.fromEntries(Object.entries(result).map(([name, t]) => [name, t.item()]));
      if (!Number.isFinite(values.loss!) || !Number.isFinite(values.gradNorm!)) this.#diverged(values);
      results.push(values);
    }
    return Object.fromEntries(
      Object.keys(results[0]!).map((name) => [name, results.reduce((sum, r) => sum + r[name]!, 0) / results.length]),
    );
  }

  #diverged({ loss, gradNorm }: Record<string, number>): never {
    const saved =
      this.#saved === null ? "no checkpoint was made" : `the newest checkpoint is that of step ${this.#saved}`;
    throw new PolicyDivergedError(
      `training diverged in step ${this.#step + 1}: the loss is ${loss} and the norm of its gradient ${gradNorm}; ${saved}; lower the learning rate or the temperature`,
    );
  }

  /**
   * Counts a step that taught nothing.
   * @returns whether there were too many in a row because all is solved
   * @throws NoLearningSignalError when there were too many in a row for another reason
   */
  #idled(groups: readonly Group<P>[]): boolean {
    const { patience = 10, solved } = this.#options;
    this.#idle++;
    if (this.#idle < patience) return false;
    if (groups.every(({ rewards }) => rewards.every((reward) => reward === solved))) return true;
    const rewards = new Set(groups.flatMap((group) => group.rewards));
    const last = rewards.size === 1 ? `the last were all ${[...rewards][0]}` : "they differ between prompts only";
    throw new NoLearningSignalError(
      `no learning signal: for ${this.#idle} steps in a row all completions of each prompt earned the same (${last}); take prompts that are solved now and then, raise the temperature, or draw more samples`,
    );
  }

  #summary(groups: readonly Group<P>[]): Record<string, number> {
    const all = groups.flatMap(({ completions }) => completions);
    const mean = (values: readonly number[]): number => values.reduce((a, b) => a + b, 0) / values.length;
    return {
      reward: mean(groups.flatMap(({ rewards }) => rewards)),
      length: mean(all.map(({ tokens }) => tokens.length)),
      ended: mean(all.map(({ ended }) => Number(ended))),
      skipped: mean(groups.map(({ rewards }) => Number(rewards.every((r) => r === rewards[0])))),
    };
  }

  /** The trained parameters of the moment by path. */
  async #trained(): Promise<Record<string, HostTensor>> {
    const state = await this.#loop.read((path) => path.startsWith("params."));
    return Object.fromEntries(Object.entries(state).map(([path, value]) => [path.slice("params.".length), value]));
  }

  /** Hands the present weights to what draws completions. */
  async #hand(): Promise<void> {
    const rounds = this.#options.rolloutPrecision === "bf16";
    const values = Object.entries(await this.#trained());
    this.#rollouts.load(
      Object.fromEntries(values.map(([path, value]) => [path, rounds ? value.cast("bf16").cast(value.dtype) : value])),
    );
  }

  async #evaluate(): Promise<void> {
    const { evaluate, policy } = this.#options;
    const params = withTrained(policy.weights, await this.#trained());
    this.#write("evaluate", await evaluate!.run({ params, step: this.#step, rollouts: this.#rollouts }));
  }

  async #restore({ step, state, data }: Checkpoint): Promise<void> {
    const { prompts, idle } = data as { prompts: unknown; idle: number };
    await this.#loop.load(state);
    this.#options.prompts.restore(prompts);
    this.#idle = idle;
    this.#step = step;
    this.#saved = step;
  }

  async #save(): Promise<void> {
    const data = { prompts: this.#options.prompts.state(), idle: this.#idle };
    const state = await this.#loop.state();
    await this.#options.checkpoint!.store.save({ step: this.#step, state, data, best: null });
    this.#saved = this.#step;
  }

  #write(kind: LogEntry["kind"], values: Readonly<Record<string, number>>): void {
    const entry: LogEntry = { step: this.#step, kind, values, seconds: (performance.now() - this.#began) / 1000 };
    this.#log.push(entry);
    this.#options.onLog?.(entry);
  }
}

function checkOptions<W, P extends Prompt, I>(options: TrainPolicyOptions<W, P, I>): void {
  const { steps, samples, updates = 1, patience = 10, temperature = 1, kl = 0, evaluate, checkpoint } = options;
  const whole = { steps, updates, patience, "evaluate.every": evaluate?.every, "checkpoint.every": checkpoint?.every };
  for (const [name, value] of Object.entries(whole))
    if (value !== undefined && (!Number.isInteger(value) || value < 1))
      throw new ArgumentError(`${name} must be a whole number from 1, not ${value}`);
  if (!Number.isInteger(samples) || samples < 2)
    throw new ArgumentError(
      `samples must be a whole number from 2, not ${samples}: completions are compared with others of the same prompt`,
    );
  if (!(temperature > 0 && temperature < Infinity))
    throw new ArgumentError(`temperature must be a number above 0, not ${temperature}`);
  if (!(kl >= 0 && kl < Infinity)) throw new ArgumentError(`kl must be a finite number from 0, not ${kl}`);
}
