import type { Check, Finding, Setting, System } from "../system.ts";
import { earlyDistance, endOf, plainRun, quantizedRun, roundedScore, type Task, type Trained } from "./contest.ts";
import { digitsTask, readDigits } from "./digits.ts";
import { languageTask } from "./language.ts";
import { theory } from "./theory.ts";

const PROXES = ["parq", "hard", "binary-relax"] as const;

/** How much one point on the scale of a task's scores may matter. */
interface Margins {
  readonly name: string;
  readonly unit: string;
  /** PARQ may score so much below straight-through training, and below full precision. */
  readonly belowStraight: number;
  readonly belowFull: number;
  /** Rounding after training must score at least so much below PARQ. */
  readonly rounding: number;
}

interface Numbers {
  readonly checks: Check[];
  readonly metrics: Record<string, number>;
  readonly baseline: Record<string, number>;
}

async function theoryPart(setting: Setting): Promise<Numbers> {
  const { aprox, proxSgd, fista, optimal } = await theory(setting);
  setting.log(
    `theory: ${aprox.onLevel} of AProx's weights on levels, ${proxSgd.onLevel} of Prox-SGD's, ${fista.onLevel} at the optimum`,
  );
  return {
    checks: [
      {
        what: "share of weights on levels at the last aggregate step, 0.55 and five times that of plain ones",
        ours: aprox.onLevel,
        baseline: proxSgd.onLevel,
        holds: aprox.onLevel >= 0.55 && aprox.onLevel >= 5 * proxSgd.onLevel,
      },
      {
        what: "objective within 1 % of FISTA's",
        ours: aprox.objective,
        baseline: fista.objective,
        holds: Math.abs(aprox.objective / fista.objective - 1) <= 0.01,
      },
      {
        what: "share of coordinates that meet the optimality condition at FISTA's solution",
        ours: optimal,
        baseline: 0.99,
        holds: optimal >= 0.99,
      },
    ],
    metrics: { "on levels, AProx": aprox.onLevel, "objective, AProx": aprox.objective },
    baseline: {
      "on levels, Prox-SGD": proxSgd.onLevel,
      "on levels, FISTA": fista.onLevel,
      "objective, Prox-SGD": proxSgd.objective,
      "objective, FISTA": fista.objective,
    },
  };
}

const average = (values: readonly number[]): number => values.reduce((a, b) => a + b, 0) / values.length;

/** 1 bit and ternary by all maps on each of the tasks (seeds), and the curves of losses at 2 bits on the first. */
export async function trainingPart(tasks: readonly Task[], margins: Margins): Promise<Numbers> {
  const scores: Record<string, number[]> = {};
  const put = (key: string, value: number): void => void (scores[key] ??= []).push(value);
  const distinct: Record<number, number> = { 0: 0, 1: 0, 2: 0 };
  let [plainLosses, rounded]: [readonly number[], number[]] = [[], []];
  for (const [i, task] of tasks.entries()) {
    const plain = await plainRun(task);
    if (i === 0) plainLosses = plain.losses;
    put("full precision", plain.score);
    rounded.push(await roundedScore(task, plain.weights));
    for (const bits of [0, 1] as const)
      for (const prox of PROXES) {
        const run = await quantizedRun(task, bits, prox);
        put(`${prox}, ${bits === 0 ? "ternary" : "1 bit"}`, run.score);
        distinct[bits] = Math.max(distinct[bits]!, run.distinct);
      }
  }
  const of = (prox: string): number => average([...scores[`${prox}, ternary`]!, ...scores[`${prox}, 1 bit`]!]);
  const [ours, straight, full] = [of("parq"), of("hard"), average(scores["full precision"]!)];
  const oneBit = average(scores["parq, 1 bit"]!);

  const soft = await quantizedRun(tasks[0]!, 2, "parq", { steepness: 50 });
  const hard = await quantizedRun(tasks[0]!, 2, "hard");
  distinct[2] = Math.max(soft.distinct, hard.distinct);
  const early = (run: Trained): number => earlyDistance(run.losses, plainLosses);
  const { name, unit } = margins;
  const named = (prox: string): [string, number][] =>
    ["ternary", "1 bit"].map((bits) => [`${name}, ${bits}, ${unit} of ${prox}`, average(scores[`${prox}, ${bits}`]!)]);
  return {
    checks: [
      ...[0, 1, 2].map((bits): Check => {
        const most = bits === 0 ? 3 : 2 ** bits;
        return {
          what: `${name}, most values in a row of the file, ${bits === 0 ? "ternary" : `${bits} bits`}`,
          ours: distinct[bits]!,
          baseline: most,
          holds: distinct[bits]! <= most,
        };
      }),
      {
        what: `${name}, ${unit}, at most ${margins.belowStraight} below straight-through`,
        ours,
        baseline: straight,
        holds: ours >= straight - margins.belowStraight,
      },
      {
        what: `${name}, ${unit}, at most ${margins.belowFull} below full precision`,
        ours,
        baseline: full,
        holds: ours >= full - margins.belowFull,
      },
      {
        what: `${name}, ${unit}, 1 bit at least ${margins.rounding} above rounding after training`,
        ours: oneBit,
        baseline: average(rounded),
        holds: oneBit >= average(rounded) + margins.rounding,
      },
      {
        what: `${name}, 2 bits, distance of the loss from full precision's in the first fifth, below straight-through's`,
        ours: early(soft),
        baseline: early(hard),
        holds: early(soft) < early(hard),
      },
      {
        what: `${name}, 2 bits, loss at the end at most 5 % above straight-through's`,
        ours: endOf(soft.losses),
        baseline: endOf(hard.losses),
        holds: endOf(soft.losses) <= 1.05 * endOf(hard.losses),
      },
    ],
    metrics: Object.fromEntries(named("parq")),
    baseline: Object.fromEntries([
      ...named("hard"),
      ...named("binary-relax"),
      [`${name}, ${unit} in full precision`, full],
      [`${name}, ${unit} rounded to 1 bit after training`, average(rounded)],
    ]),
  };
}

async function experiment(setting: Setting): Promise<Finding> {
  const parts = [await theoryPart(setting)];
  const notes = [
    "2 bits, loss at the end: that PARQ meets straight-through's curve to 5 % is read as that it ends no more than 5 % above it, since it may also end below",
    "scores on language are negative losses in nats a token; all scores of quantized models are of the model read back from its exported file",
  ];
  const margins = { name: "language", unit: "score", belowStraight: 0.02, belowFull: 0.5, rounding: 0.3 };
  const seeds = Array.from({ length: setting.full ? 3 : 1 }, (_, i) => setting.seed + i);
  const languages: Task[] = [];
  for (const seed of seeds) languages.push(await languageTask({ ...setting, seed }));
  parts.push(await trainingPart(languages, margins));
  const digits = setting.full ? await readDigits(setting) : null;
  if (digits) {
    const tasks = seeds.map((seed) => digitsTask(setting, digits, seed));
    parts.push(
      await trainingPart(tasks, { name: "digits", unit: "accuracy", belowStraight: 0.1, belowFull: 2, rounding: 10 }),
    );
  } else {
    notes.push(
      "digits: the full proof trains a convolutional net on MNIST too, from images/mnist in the folder that PARE_DATA names",
    );
  }
  return {
    checks: parts.flatMap(({ checks }) => checks),
    metrics: Object.assign({}, ...parts.map(({ metrics }) => metrics)) as Record<string, number>,
    baseline: Object.assign({}, ...parts.map(({ baseline }) => baseline)) as Record<string, number>,
    notes,
  };
}

/** PARQ's proximal method against plain steps, and its training against straight-through and BinaryRelax. */
export const parq: System = {
  name: "PARQ",
  family: "weights",
  summary:
    "makes any optimizer train weights that end exactly on 1 to 4 bits or ternary levels, without touching the model",
  paper: {
    title: "PARQ: Piecewise-Affine Regularized Quantization",
    authors: "Jin, Ma, Liu, Gromov, Defazio, Xiao",
    year: 2025,
    url: "https://arxiv.org/abs/2503.15748",
  },
  file: "src/methods/weights/parq",
  claim:
    "aggregate proximal steps put weights on levels where plain ones do not; annealed to rounding, they train few bits competitively with straight-through, following full precision for longer",
  bar: "theory: 0.55 of the weights on levels and five times as many as with plain steps, objective within 1 % of FISTA's; training: no row with more values than its bits, scores not below straight-through's, near full precision and far above rounding after training, a loss that starts nearer to full precision and ends with straight-through's; on language, and with --full and MNIST in PARE_DATA on digits",
  experiment,
};
