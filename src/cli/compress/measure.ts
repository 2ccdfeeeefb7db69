import { cpus, totalmem } from "node:os";
import { denseValues, type MatrixReport } from "../../methods/index.ts";
import type { OpenModel } from "../../models/node.ts";
import { asWeight } from "../../nn/index.ts";
import {
  activationsAt,
  histogramOf,
  measureQuality,
  type Quality,
  type Report,
  type Subject,
  type Variant,
} from "../../report/index.ts";
import { probe } from "../../report/node.ts";
import { HostTensor } from "../../tensor/index.ts";
import type { MeasuredText } from "./texts.ts";

export interface Measuring {
  readonly text: MeasuredText;
  /** Tokens to measure on at most. */
  readonly limit: number;
  readonly prompt: string;
  readonly signal: AbortSignal;
  readonly threads?: number | undefined;
}

/** Tokens of the prompt that speed is measured on. */
const PROBE_TOKENS = 192;

/** Measures a model's quality here, and its speed in a process of its own from where it is saved. */
export async function measureVariant(
  subject: Subject,
  place: string,
  reference: Subject | null,
  { text, limit, prompt, signal, threads }: Measuring,
): Promise<Variant> {
  const tokens = text.tokens.slice(0, limit);
  const device = threads === undefined ? {} : { threads };
  const quality: Quality = await measureQuality(subject, { reference, tokens, prompt, ...device });
  const long = subject.tokenizer.decode(tokens.slice(0, Math.min(PROBE_TOKENS, subject.config.maxPositions >> 1)));
  return { ...quality, ...(await probe(place, { prompt: long, signal, ...device })) };
}

/** The relative output errors of matrix reports by name; of matrices without calibration the weights' own. */
export function layerErrorsOf(reports: readonly MatrixReport[]): Record<string, number> {
  return Object.fromEntries(reports.map(({ name, outputError, weightError }) => [name, outputError ?? weightError]));
}

/** Histograms of one matrix and of its input, from the middle of the models. */
export async function histogramsOf(
  subjects: readonly Subject[],
  tokens: readonly number[],
): Promise<Report["histograms"]> {
  const [first] = subjects;
  const middle = first!.config.layers >> 1;
  const [matrix, point] = [`model.layers.${middle}.mlp.down_proj.weight`, `model.layers.${middle}.mlp.act`];
  const window = tokens.slice(0, Math.min(256, first!.config.maxPositions));
  const ids = new HostTensor("i64", [1, window.length], BigInt64Array.from(window, BigInt));
  const weights: Record<string, ArrayLike<number>> = {};
  const inputs: Record<string, ArrayLike<number>> = {};
  for (const { name, config, weights: all } of subjects) {
    weights[name] = (await denseValues(asWeight(all[matrix]!))).data as Float32Array;
    inputs[name] = (await activationsAt({ config, weights: all }, [point], ids))[point]!.data as Float32Array;
  }
  return [
    histogramOf(`Weights of layer ${middle}, mlp.down_proj`, weights),
    histogramOf(`Activations before it, on ${window.length} tokens`, inputs),
  ];
}

/** The machine in a few words. */
export function machineName(): string {
  const model = cpus()[0]?.model.trim() ?? "unknown processor";
  return `${model}, ${cpus().length} cores, ${Math.round(totalmem() / 2 ** 30)} GiB, Node ${process.versions.node}`;
}

/** Bytes of a model's weights in the types that they have in their file. */
export function storedBytes({ tensors }: Pick<OpenModel, "tensors">): number {
  let sum = 0;
  for (const { bytes } of tensors.tensors.values()) sum += bytes;
  return sum;
}
