import {
  type Architecture,
  architectureName,
  hypervolume,
  type LatencyModel,
  type Objectives,
  searchArchitectures,
  spreadArchitectures,
  type Trial,
  trialFront,
  trialHypervolume,
} from "../../methods/index.ts";
import { Rng } from "../../tensor/index.ts";
import type { Check, Setting } from "../system.ts";
import { type Laboratory, space } from "./laboratory.ts";

/** Shapes that are judged once, for searches among them to be compared over several seeds. */
const POOL = 48;
const TRIALS = 24;
const SEEDS = 3;
/** Trials of the search over the whole space. */
const LONG = { short: 16, full: 48 } as const;
interface Measured {
  readonly name: string;
  readonly ttftMs: number;
  readonly loss: number;
}

/** The search over the whole space, its front timed again, beside the backbone and pruning in depth or width alone. */
export async function frontChecks(
  setting: Setting,
  laboratory: Laboratory,
  model: LatencyModel,
): Promise<{ checks: Check[]; metrics: Record<string, number> }> {
  const whole = laboratory.whole;
  const latency = (x: Architecture): number => model.predict(x).meanMs;
  const reference = { loss: (await laboratory.backboneLoss()) + 1, ttftMs: 1.1 * latency(whole) };
  const trials: Trial[] = [];
  const options = { space, latency, evaluate: (x: Architecture) => laboratory.loss(x), reference };
  const { seed, full, signal, log } = setting;
  const count = full ? LONG.full : LONG.short;
  for await (const trial of searchArchitectures({
    ...options,
    trials: count,
    initial: 8,
    batch: full ? 4 : 2,
    seed,
    signal,
    warn: log,
  }))
    trials.push(trial);
  const front = trialFront(trials);
  const depth = full
    ? [4, 5, 6].map((layers) => ({ ...whole, layers, attention: whole.attention.slice(0, layers) }))
    : [];
  const width = full
    ? (
        [
          [48, 144],
          [72, 192],
          [72, 288],
          [96, 144],
        ] as const
      ).map(([dim, ffn]) => ({ ...whole, dim, ffn }))
    : [];
  // One measurement of all, so that all see the same machine, and one of what the search found among the others.
  const shapes = [whole, ...front.map(({ architecture }) => architecture), ...depth, ...width];
  const different = [...new Map(shapes.map((x) => [architectureName(x), x])).values()];
  const timed = await laboratory.probe.measure(different, signal);
  const latencies = new Map(different.map((x, i) => [architectureName(x), timed[i]?.ttftMs]));
  const measured: (Measured | null)[] = [];
  for (const [i, x] of shapes.entries()) {
    const ttftMs = latencies.get(architectureName(x));
    const loss = i === 0 ? await laboratory.backboneTestLoss() : await laboratory.testLoss(x);
    measured.push(ttftMs === undefined ? null : { name: architectureName(x), ttftMs, loss });
    log(`${architectureName(x)}: ${ttftMs?.toFixed(2)} ms, test loss ${loss.toFixed(3)}`);
  }
  const present = (from: number, to: number): Measured[] => measured.slice(from, to).filter((x) => x !== null);
  const backbone = measured[0];
  if (!backbone) throw new Error("the backbone could not be timed");
  const ends = [1, 1 + front.length, 1 + front.length + depth.length, shapes.length] as const;
  const found = present(ends[0], ends[1]);
  const fast = found.filter(({ ttftMs }) => ttftMs <= 0.67 * backbone.ttftMs).sort((a, b) => a.loss - b.loss)[0];
  const area = (points: readonly Measured[]): number =>
    hypervolume(
      points.map(({ ttftMs, loss }): Objectives => [ttftMs, loss]),
      [1.1 * backbone.ttftMs, backbone.loss + 1],
    );
  const checks: Check[] = [
    {
      what: "test loss of the best model with 0.67 of the backbone's latency, and the backbone's + 0.15",
      ours: fast?.loss ?? Number.NaN,
      baseline: backbone.loss + 0.15,
      holds: fast !== undefined && fast.loss <= backbone.loss + 0.15,
    },
  ];
  const noWorse = (a: Measured, b: Measured): boolean => a.ttftMs <= b.ttftMs && a.loss <= b.loss;
  for (const [name, others] of full
    ? ([
        ["depth", present(ends[1], ends[2])],
        ["width", present(ends[2], ends[3])],
      ] as const)
    : []) {
    const beaten = others.filter((other) => found.some((x) => noWorse(x, other))).length;
    checks.push(
      {
        what: `hypervolume of the front, and of pruning in ${name} alone`,
        ours: area(found),
        baseline: area(others),
        holds: area(found) > area(others),
      },
      {
        what: `models pruned in ${name} alone that one of the front is no worse than in both, and all`,
        ours: beaten,
        baseline: others.length,
        holds: beaten === others.length,
      },
    );
  }
  return {
    checks,
    metrics: {
      "backbone ms": backbone.ttftMs,
      "backbone test loss": backbone.loss,
      ...(fast && { "fast model ms": fast.ttftMs, "fast model test loss": fast.loss }),
    },
  };
}

/** The search against random choice, among shapes that were all judged once, over several seeds. */
export async function searchChecks(setting: Setting, laboratory: Laboratory, model: LatencyModel): Promise<Check[]> {
  const pool = spreadArchitectures(space, POOL, new Rng(setting.seed).fork("pool"));
  const latency = (x: Architecture): number => model.predict(x).meanMs;
  const reference = { loss: (await laboratory.backboneLoss()) + 1, ttftMs: 1.1 * latency(laboratory.whole) };
  for (const x of pool) await laboratory.loss(x);
  const sums = { ours: { half: 0, all: 0 }, random: { half: 0, all: 0 } };
  const add = (to: { half: number; all: number }, trials: readonly Trial[]): void => {
    to.half += trialHypervolume(trials.slice(0, TRIALS / 2), reference) / SEEDS;
    to.all += trialHypervolume(trials, reference) / SEEDS;
  };
  for (let i = 0; i < SEEDS; i++) {
    const seed = SEEDS * setting.seed + i;
    const trials: Trial[] = [];
    const evaluate = (x: Architecture): Promise<number> => laboratory.loss(x);
    const search = { space, pool, latency, evaluate, reference, trials: TRIALS, initial: 6, batch: 3, seed };
    for await (const trial of searchArchitectures(search)) trials.push(trial);
    add(sums.ours, trials);
    // Random choice starts with the same trials.
    const first = trials.slice(0, search.initial).map(({ architecture }) => architectureName(architecture));
    const rest = pool.filter((x) => !first.includes(architectureName(x)));
    const drawn = new Rng(seed).fork("random").sample(rest, TRIALS - search.initial);
    const random = [...trials.slice(0, search.initial).map(({ architecture }) => architecture), ...drawn];
    const judged: Trial[] = [];
    for (const x of random)
      judged.push({ number: judged.length + 1, architecture: x, loss: await evaluate(x), ttftMs: latency(x) });
    add(sums.random, judged);
  }
  const { ours, random } = sums;
  return [
    {
      what: `hypervolume after ${TRIALS} trials, and of random choice x 0.98`,
      ours: ours.all,
      baseline: 0.98 * random.all,
      holds: ours.all >= 0.98 * random.all,
    },
    {
      what: `hypervolume after ${TRIALS / 2} trials, and of random choice`,
      ours: ours.half,
      baseline: random.half,
      holds: ours.half > random.half,
    },
  ];
}
