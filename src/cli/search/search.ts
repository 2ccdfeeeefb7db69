import { join } from "node:path";
import { writeFilesAtomic } from "../../formats/files.node.ts";
import {
  type Architecture,
  type AttentionKind,
  architectureConfig,
  architectureName,
  calibrationWindows,
  checkSpace,
  continuePreTraining,
  hypervolume,
  inherit,
  type Latency,
  LatencyModel,
  type LatencyProbe,
  meanLoss,
  parameterCount,
  processorClock,
  type SearchSpace,
  searchArchitectures,
  sessionProbe,
  spreadArchitectures,
  structuredImportance,
  type Trial,
  trialFront,
} from "../../methods/index.ts";
import { frontPage, openSearchLog, type SearchLog } from "../../methods/node.ts";
import { requireTokenizer, resizedConfigJson } from "../../models/index.ts";
import { embeddedModel, type OpenModel, openModel, saveModel } from "../../models/node.ts";
import { HostTensor, Rng } from "../../tensor/index.ts";
import { readTexts } from "../compress/texts.ts";
import { UsageError } from "../errors.ts";
import { type SpaceOptions, spaceFor } from "./space.ts";

export interface SearchJob {
  /** As `openModel` takes it; without one, the model that comes with pare. */
  readonly backbone: string | undefined;
  readonly space: SpaceOptions;
  readonly prompt: number;
  readonly ttftMs: number;
  readonly samples: number;
  readonly trials: number;
  readonly batch: number;
  readonly training: {
    readonly steps: number;
    readonly finalSteps: number;
    readonly batch: number;
    readonly length: number;
    readonly rate: number;
  };
  readonly train: string | undefined;
  readonly text: string | undefined;
  readonly clock: "wall" | "processor";
  readonly repeats: number;
  readonly threads: number | undefined;
  readonly seed: number;
  readonly out: string;
  readonly signal: AbortSignal;
  readonly note: (line: string) => void;
  /** What measures instead of the runtime on this machine. */
  readonly probe?: LatencyProbe;
}

/** A model that was written, as measured at the end. */
export interface Winner extends Latency {
  readonly folder: string;
  readonly architecture: Architecture;
  readonly parameters: number;
  readonly loss: number;
}

export interface SearchResult {
  readonly backbone: Latency & { readonly loss: number; readonly parameters: number };
  /** Share of the variance of log latencies that the model explains of architectures that it was not told. */
  readonly latencyR2: number;
  readonly trials: readonly Trial[];
  readonly hypervolume: number;
  readonly winners: readonly Winner[];
}

/** Windows that importance is judged by, and that validation takes at most. */
const CALIBRATION = 32;
const VALIDATION = 48;
/** Models of the front that are written. */
const MOST_WINNERS = 3;

/**
 * Searches for smaller shapes of a model that answer sooner on this machine, writes the best, and keeps a log in the folder
 * from which a stopped search goes on.
 * @returns null when the signal stopped it
 */
export async function searchModel(job: SearchJob): Promise<SearchResult | null> {
  try {
    await using model = await openModel(job.backbone ?? embeddedModel);
    return await new Search(job, model).run();
  } catch (error) {
    if (!job.signal.aborted || error !== job.signal.reason) throw error;
    job.note(`stopped; the same command goes on from ${join(job.out, LOG)}`);
    return null;
  }
}

const LOG = "trials.jsonl";

class Search {
  readonly #job: SearchJob;
  readonly #model: OpenModel;
  readonly #space: SearchSpace;
  readonly #probe: LatencyProbe;

  constructor(job: SearchJob, model: OpenModel) {
    const { signal: _, note, clock, threads } = job;
    this.#job = job;
    this.#model = model;
    this.#space = spaceFor(job.space, model.config);
    checkSpace(this.#space, model.config);
    this.#probe =
      job.probe ??
      sessionProbe({
        backbone: model.config,
        window: this.#space.window,
        promptTokens: job.prompt,
        repeats: job.repeats,
        warn: note,
        // Of several threads, the processor's time adds up what they spend on waiting for each other.
        ...(clock === "processor" ? { clock: processorClock, threads: 1 } : threads && { threads }),
        onMeasured: (done, total) => note(`latency of ${done} of ${total} architectures`),
      });
  }

  async run(): Promise<SearchResult> {
    const { job, model, space } = { job: this.#job, model: this.#model, space: this.#space };
    const { seed, note, signal } = job;
    const { training, validation } = await this.#texts();
    const length = Math.min(job.training.length, model.config.maxPositions);
    const backboneLoss = await meanLoss(model, validation);
    const log = await openSearchLog(join(job.out, LOG), this.#settings());
    const [whole] = await this.#probe.measure([this.#whole()], signal);
    if (!whole) throw new UsageError("the model itself could not be timed; raise --repeats, or give --clock processor");
    note(`the model itself: ${whole.ttftMs.toFixed(1)} ms, loss ${backboneLoss.toFixed(3)}`);

    const latency = await this.#latencyModel(log);
    note(`latency model: leave-one-out R² ${latency.leaveOneOutR2.toFixed(3)}`);
    const windows = calibrationWindows(training, { count: CALIBRATION, length, seed });
    const importance = await structuredImportance(model, windows);
    const trained = async (x: Architecture, steps: number) => {
      const candidate = inherit(model, x, importance, space.window);
      const { batch, rate } = job.training;
      const options = { training, steps, batch, length, rate, seed, signal };
      return { ...candidate, weights: await continuePreTraining(candidate, options) };
    };
    const reference = { loss: backboneLoss + 1, ttftMs: job.ttftMs };
    const trials = [...log.trials];
    const search = searchArchitectures({
      space,
      latency: (x) => latency.predict(x).meanMs,
      evaluate: async (x) => meanLoss(await trained(x, job.training.steps), validation),
      trials: job.trials,
      initial: Math.min(8, job.trials),
      batch: job.batch,
      reference,
      seed,
      done: log.trials,
      warn: note,
      signal,
    });
    for await (const trial of search) {
      trials.push(trial);
      await log.append({ trial });
      const { number, architecture, loss, ttftMs } = trial;
      note(
        `${number} of ${job.trials}: ${architectureName(architecture)}, ${ttftMs.toFixed(1)} ms, loss ${loss.toFixed(3)}`,
      );
    }
    const backbone = { ...whole, loss: backboneLoss, parameters: parameterCount(model.config) };
    await this.#page(trials, backbone);
    const winners: Winner[] = [];
    for (const { architecture } of trialFront(trials.filter(({ ttftMs }) => ttftMs <= job.ttftMs)).slice(-MOST_WINNERS))
      winners.push(await this.#write(architecture, await trained(architecture, job.training.finalSteps), validation));
    return {
      backbone,
      latencyR2: latency.leaveOneOutR2,
      trials,
      hypervolume: hypervolume(
        trials.map(({ ttftMs, loss }) => [ttftMs, loss] as const),
        [reference.ttftMs, reference.loss],
      ),
      winners,
    };
  }

  /** The backbone's own architecture. */
  #whole(): Architecture {
    const { layers, dim, ffn, window } = this.#model.config;
    const attention = window.map((own): AttentionKind => (own === null ? "full" : own === 0 ? "skip" : "sliding"));
    return { layers, dim, ffn, attention };
  }

  #settings() {
    const { backbone = "", prompt, seed, samples, clock, repeats, batch, training, train = "", text = "" } = this.#job;
    const { finalSteps: _, ...candidates } = training;
    return JSON.parse(
      JSON.stringify({
        backbone,
        space: this.#space,
        prompt,
        seed,
        samples,
        clock,
        repeats,
        batch,
        ttft: this.#job.ttftMs,
        training: candidates,
        train,
        text,
      }),
    );
  }

  async #texts(): Promise<{ training: readonly number[]; validation: HostTensor }> {
    const { train, text, note, training } = this.#job;
    const { source, config } = this.#model;
    const texts = await readTexts(source, requireTokenizer(this.#model), { calibrate: train, text }, note);
    if (!texts.calibration || !texts.measured)
      throw new UsageError("candidates are trained on for a while: name a text like the model's own with --train");
    const length = Math.min(training.length, config.maxPositions);
    const count = Math.min(VALIDATION, Math.floor(texts.measured.tokens.length / length));
    if (count < 1) throw new UsageError(`the text to judge by has less than one window of ${length} tokens`);
    const validation = HostTensor.zeros("i64", [count, length]);
    for (let i = 0; i < validation.size; i++) validation.set(i, texts.measured.tokens[i]!);
    return { training: texts.calibration, validation };
  }

  async #latencyModel(log: SearchLog): Promise<LatencyModel> {
    const { samples, seed, signal } = this.#job;
    const rng = new Rng(seed).fork("latency");
    const architectures = spreadArchitectures(this.#space, samples, rng.fork("samples"));
    const measured = [...log.latencies];
    const group = 8;
    while (measured.length < architectures.length) {
      const next = architectures.slice(measured.length, measured.length + group);
      const found = await this.#probe.measure(next, signal);
      for (const [i, architecture] of next.entries()) {
        const line = { architecture, latency: found[i] ?? null };
        measured.push(line);
        await log.append({ latency: line });
      }
      this.#job.note(`latency of ${measured.length} of ${samples} architectures`);
    }
    const usable = measured.flatMap(({ architecture, latency }) =>
      latency ? [{ architecture, ttftMs: latency.ttftMs }] : [],
    );
    return await LatencyModel.fit(usable, this.#space, rng.fork("model"));
  }

  async #write(
    architecture: Architecture,
    { config, weights }: Awaited<ReturnType<typeof inherit>>,
    validation: HostTensor,
  ): Promise<Winner> {
    const folder = join(this.#job.out, architectureName(architecture).replaceAll(" ", "-").replaceAll("--", "-"));
    const { json, tokenizer } = this.#model;
    await saveModel(folder, { json: resizedConfigJson(json, config), weights, tokenizer });
    const [latency] = await this.#probe.measure([architecture], this.#job.signal);
    const loss = await meanLoss({ config, weights }, validation);
    const unknown = { ttftMs: Number.NaN, decodeTokS: Number.NaN };
    const parameters = parameterCount(architectureConfig(this.#model.config, architecture, this.#space.window));
    return { folder, architecture, parameters, loss, ...(latency ?? unknown) };
  }

  async #page(trials: readonly Trial[], backbone: { loss: number; ttftMs: number }): Promise<void> {
    const page = frontPage({ title: `shapes of ${this.#model.source.split(/[/\\]/).at(-1)}`, trials, backbone });
    const bytes = new TextEncoder().encode(page);
    await writeFilesAtomic([{ path: join(this.#job.out, "front.html"), write: (sink) => sink.write(bytes) }]);
  }
}
