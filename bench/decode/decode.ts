import { readFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { Rng } from "../../src/tensor/index.ts";
import { type Command, type Given, type Report, UsageError } from "../command.ts";
import { compareWorks, type Entry, type Measured } from "../harness.ts";
import { loadAverages } from "../report.ts";
import { type EngineSettings, works } from "./engine.ts";
import { bandwidth, type MeasuredAt, ours, peers, summarize, table } from "./figures.ts";
import { modelFolder } from "./files.ts";
import { contexts, type Precision, precisions, promptTokens, shapes } from "./shapes.ts";

/** How long each participant is at one work in a round, in seconds; a step that has begun is finished. */
const turn = 1;

/** Reading prompts and decoding, beside llama.cpp and transformers.js. */
export const decode: Command = {
  options: { shape: "100m", bits: "32,8,4", work: join(tmpdir(), "pare-bench") },
  run: ({ options, ...given }) => runDecode({ ...given, ...options } as unknown as DecodeOptions),
};

export interface DecodeOptions extends Omit<Given, "options"> {
  /** A model's name in `shapes`. */
  readonly shape: string;
  /** Bits of weights, separated by commas. */
  readonly bits: string;
  /** Folder that models are made in, and found in by the next run. */
  readonly work: string;
  /** Default 1. */
  readonly seconds?: number;
}

/**
 * One precision after the other; at each, all engines and the measurement of bandwidth take turns.
 * @throws UsageError for another shape or number of bits; Error when engines do not compute the same
 */
export async function runDecode(options: DecodeOptions): Promise<Report> {
  const { shape, rounds, threads, work, seconds = turn, log } = options;
  if (!Object.hasOwn(shapes, shape))
    throw new UsageError(`there is no shape "${shape}"; there are ${Object.keys(shapes).join(", ")}`);
  const wanted = options.bits.split(",").map(precisionOf);
  const load = loadAverages();
  const folder = await modelFolder(work, shape, wanted, log);
  const prompt = await promptOf(folder);
  const measured: MeasuredAt = {};
  for (const precision of wanted) {
    log(`${precisions[precision].bits} bits`);
    measured[precision] = await compareWorks(entries({ folder, precision, prompt }), { rounds, threads, seconds, log });
    // What is rounded in different ways may go on in different ways.
    if (precision === "f32") checkAgreement(measured[precision]);
  }
  const result = summarize(measured, { shape, threads, load });
  return { result, text: table(result) };
}

function precisionOf(bits: string): Precision {
  const found = Object.entries(precisions).find(([, precision]) => `${precision.bits}` === bits.trim());
  if (!found) throw new UsageError(`--bits takes 32, 8, 4 and 2, separated by commas, not ${bits}`);
  return found[0] as Precision;
}

/** Random tokens of the model's vocabulary. */
async function promptOf(folder: string): Promise<number[]> {
  const { vocab_size: vocab } = JSON.parse(await readFile(join(folder, "config.json"), "utf8"));
  return new Rng(5).integers(promptTokens, vocab);
}

/**
 * @throws Error when an engine does not choose one token in all steps of a work, or, behind the short context, another
 *   than this one. Behind a long one llama.cpp may: it keeps keys and values in half precision.
 */
export function checkAgreement(measured: Readonly<Record<string, Readonly<Record<string, Measured>>>>): void {
  const chosen = measured[ours]![shortest]!.values[0];
  for (const name of [ours, ...Object.values(peers).map((peer) => peer.name)]) {
    for (const work of works) {
      const { values } = measured[name]![work]!;
      const expected = work === shortest ? chosen : values[0];
      const other = values.find((value) => value !== expected);
      if (other !== undefined) throw new Error(`${work}: ${name} chooses token ${other} where ${expected} is expected`);
    }
  }
}

const shortest = `decode${contexts[0]}`;

const entries = (settings: EngineSettings): Entry[] => [
  { name: ours, module: "./decode/ours.ts", settings, works },
  ...Object.values(peers).map(({ name, module }) => ({ name, module, settings, works })),
  { name: bandwidth, module: "./decode/bandwidth.ts" },
];
