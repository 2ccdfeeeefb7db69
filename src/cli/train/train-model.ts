import { join } from "node:path";
import { type DecoderConfig, decoderConfig, decoderLogits, type Weights } from "../../models/index.ts";
import { crossEntropy, optim } from "../../nn/index.ts";
import type { Report } from "../../report/index.ts";
import { compile, type DeviceOptions } from "../../runtime/index.ts";
import type { HostTensor } from "../../tensor/index.ts";
import { IGNORED, type LogEntry, Progress, type TokenBatch, train } from "../../train/index.ts";
import { checkpointFolder, openRunLog } from "../../train/node.ts";
import { type OutputFormat, writeFormats } from "../compress/formats.ts";
import { reportOf, writeReport } from "../compress/report.ts";
import { stage } from "../compress/staging.ts";
import type { MeasuredText } from "../compress/texts.ts";
import { type Lessons, learnedTokens } from "./lessons.ts";
import { claim, type RunJob, weightsIn, writeCurves } from "./run-folder.ts";

export interface TrainJob extends RunJob {
  readonly lessons: Lessons;
  readonly optimizer: "adamw" | "muon";
  readonly evaluateEvery: number;
  readonly formats: readonly OutputFormat[];
  /** Where a report compares with the model that training began with: on what text, and where that model is. */
  readonly report: { readonly source: string; readonly text: MeasuredText } | null;
}

export interface TrainOutcome {
  readonly steps: number;
  readonly loss: number;
  /** Loss on held-out batches before and after, in nats a token; null where nothing was held out. */
  readonly heldOut: { readonly before: number; readonly after: number } | null;
  readonly weights: Weights;
  readonly report: Report | null;
}

/** Steps between two lines of progress. */
const TOLD_EVERY = 10;
const SHARE_OF_WARM_UP = 0.05;

/**
 * Trains a model into a folder: the model, and in `training/` the log and the curves. Stopped half-way it leaves its
 * checkpoints beside the folder, with which the same command goes on; the folder itself appears when it is whole.
 * @returns null when the signal stopped it
 * @throws UsageError where the checkpoints there are of another run; DivergedError
 */
export async function trainModel(job: TrainJob): Promise<TrainOutcome | null> {
  const { beginning, method, lessons, steps, seed, signal, note } = job;
  const device: DeviceOptions = job.threads === undefined ? {} : { threads: job.threads };
  const staging = await stage(job.out, job);
  try {
    await claim(staging.state, { method: method.name, steps, rate: job.rate, ...job.identity }, job);
    const start = await method.start({ config: decoderConfig(beginning.json), weights: beginning.weights });
    const { config } = start;
    const store = checkpointFolder(join(staging.state, "checkpoints"));
    const log = await openRunLog(join(staging.state, "log.jsonl"), await store.newest());
    await using held = await HeldOut.of(lessons.heldOut, config, start.weights, device);
    const before = await held.loss(beginning.weights, decoderConfig(beginning.json));
    if (before !== null) note(`held-out loss before: ${before.toFixed(4)} nats a token`);

    const first = lessons.data.state();
    const count = learnedTokens(lessons.data.next()) * job.accumulate;
    lessons.data.restore(first);
    const progress = new Progress({ steps, perStep: { count, unit: "tokens" } });
    const result = await train({
      ...device,
      params: start.weights,
      data: lessons.data,
      steps,
      seed,
      accumulate: job.accumulate,
      loss: (weights, { ids, targets }) =>
        crossEntropy(decoderLogits(config, weights as Weights, ids), targets, { ignore: IGNORED }),
      optimizer: wrapped(job),
      schedule: optim.warmUp(Math.ceil(SHARE_OF_WARM_UP * steps), optim.cosine(job.rate, steps, 0.05 * job.rate)),
      ...(method.trainable && { trainable: method.trainable }),
      ...(lessons.heldOut.length > 0 && {
        evaluate: {
          every: job.evaluateEvery,
          run: async (weights: Weights) => ({ heldOutLoss: (await held.loss(weights))! }),
        },
      }),
      checkpoint: { every: job.checkpointEvery, store },
      signal,
      onLog(entry) {
        log.write(entry);
        if (entry.kind === "evaluate" || entry.step % TOLD_EVERY === 0 || entry.step === steps)
          note(progress.line(entry));
      },
    });
    if (result.stopped === "aborted") {
      await staging.discard();
      note(`stopped after step ${result.step}; the same command goes on from ${staging.state}`);
      return null;
    }
    const finished = await method.finish({ config, weights: result.params });
    const weights = weightsIn(finished.weights, job.dtype);
    const json = { ...beginning.json, tie_word_embeddings: finished.config.tied };
    const name = job.out.split(/[/\\]/).at(-1)!;
    const made = { name, json, weights, tokenizer: beginning.tokenizer };
    await writeFormats(staging.folder, made, job.formats);
    await writeCurves(join(staging.folder, "training"), `${name}: ${method.name}`, log.entries);
    const after = await held.loss(finished.weights, finished.config);
    let report: Report | null = null;
    if (job.report) {
      note("measuring both models");
      report = await reportOf(
        { source: job.report.source, written: staging.folder, scratch: join(staging.state, "probed") },
        { ...made, config: finished.config, label: method.name },
        { ...job, text: job.report.text },
      );
      await writeReport(staging.folder, report);
    }
    await staging.finish();
    return {
      steps: result.step,
      loss: lastLoss(log.entries),
      heldOut: before === null ? null : { before, after: after! },
      weights,
      report,
    };
  } catch (error) {
    await staging.discard();
    throw error;
  }
}

function wrapped({ method, optimizer, steps }: TrainJob): optim.Optimizer {
  const inner =
    optimizer === "muon"
      ? optim.muon({ weightDecay: 0.1, otherRate: 0.15, others: { beta1: 0.9, beta2: 0.95, weightDecay: 0 } })
      : optim.adamw({ beta2: 0.95, weightDecay: 0.1 });
  return method.optimizer?.(inner, steps) ?? inner;
}

interface LossProgram {
  (weights: Weights, batch: TokenBatch): Promise<HostTensor>;
  dispose(): Promise<void>;
}

/** The loss on held-out batches, which stay the same for a run. */
class HeldOut implements AsyncDisposable {
  readonly #batches: readonly TokenBatch[];
  readonly #device: DeviceOptions;
  readonly #program: LossProgram | null;

  private constructor(batches: readonly TokenBatch[], device: DeviceOptions, program: LossProgram | null) {
    this.#batches = batches;
    this.#device = device;
    this.#program = program;
  }

  static async of(
    batches: readonly TokenBatch[],
    config: DecoderConfig,
    weights: Weights,
    device: DeviceOptions,
  ): Promise<HeldOut> {
    const program = batches.length > 0 ? await compiledLoss(config, weights, batches[0]!, device) : null;
    return new HeldOut(batches, device, program);
  }

  /**
   * Mean over the batches, in nats a token.
   * @param config of weights that are represented otherwise than those in training
   */
  async loss(weights: Weights, config?: DecoderConfig): Promise<number | null> {
    const [first] = this.#batches;
    if (!first || !this.#program) return null;
    const program = config ? await compiledLoss(config, weights, first, this.#device) : this.#program;
    let [total, tokens] = [0, 0];
    for (const batch of this.#batches) {
      const count = learnedTokens(batch);
      total += (await program(weights, batch)).item() * count;
      tokens += count;
    }
    if (config) await program.dispose();
    return total / tokens;
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.#program?.dispose();
  }
}

function compiledLoss(
  config: DecoderConfig,
  weights: Weights,
  batch: TokenBatch,
  device: DeviceOptions,
): Promise<LossProgram> {
  const loss = (bag: unknown, { ids, targets }: TokenBatch<never>) =>
    crossEntropy(decoderLogits(config, bag as Weights, ids), targets, { ignore: IGNORED });
  return compile(loss as never, [weights, batch], device) as never;
}

/** Mean training loss over the last steps. */
function lastLoss(entries: readonly LogEntry[]): number {
  const losses = entries.flatMap(({ kind, values }) => (kind === "train" ? [values["loss"]!] : [])).slice(-TOLD_EVERY);
  return losses.reduce((sum, loss) => sum + loss, 0) / losses.length;
}
