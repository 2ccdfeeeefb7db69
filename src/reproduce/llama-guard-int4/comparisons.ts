import { DecoderSession } from "../../generate/index.ts";
import type { GuardModel } from "../../methods/index.ts";
import { decoderGraph } from "../../models/index.ts";
import { toOnnx } from "../../onnx/index.ts";
import { loadDevice } from "../../runtime/index.ts";
import type { AnsweredPrompt } from "../../train/index.ts";

/** Logits `[scored, vocab]` by prompt. */
type Predictions = readonly Float32Array[];

/** Mean Kullback-Leibler divergence of two models' next tokens at the places of verdicts, in nats. */
export function divergence(teacher: Predictions, student: Predictions, vocab: number): number {
  let [sum, places] = [0, 0];
  teacher.forEach((rows, i) => {
    for (let at = 0; at < rows.length; at += vocab, places++) {
      const p = logSoftmax(rows.subarray(at, at + vocab));
      const q = logSoftmax(student[i]!.subarray(at, at + vocab));
      for (let j = 0; j < vocab; j++) sum += Math.exp(p[j]!) * (p[j]! - q[j]!);
    }
  });
  return sum / places;
}

function logSoftmax(logits: Float32Array): Float64Array {
  let [most, sum] = [-Infinity, 0];
  for (const x of logits) if (x > most) most = x;
  for (const x of logits) sum += Math.exp(x - most);
  const result = new Float64Array(logits.length);
  const total = Math.log(sum) + most;
  for (let i = 0; i < result.length; i++) result[i] = logits[i]! - total;
  return result;
}

/** Probabilities of "unsafe" among the two verdicts, by prompt. @param first the verdicts' first tokens */
export function scoresOf(predicted: Predictions, first: { readonly safe: number; readonly unsafe: number }): number[] {
  return predicted.map((rows) => 1 / (1 + Math.exp(rows[first.safe]! - rows[first.unsafe]!)));
}

/** Largest difference of the logits of some tokens. */
export function largestGap(a: Predictions, b: Predictions, ids: readonly number[], vocab: number): number {
  let gap = 0;
  a.forEach((rows, i) => {
    for (let at = 0; at < rows.length; at += vocab)
      for (const id of ids) gap = Math.max(gap, Math.abs(rows[at + id]! - b[i]![at + id]!));
  });
  return gap;
}

/** Share of prompts whose most likely tokens are the same all along the verdict. */
export function agreement(a: Predictions, b: Predictions, vocab: number): number {
  const same = a.filter((rows, i) => mostLikely(rows, vocab).join() === mostLikely(b[i]!, vocab).join());
  return same.length / a.length;
}

function mostLikely(rows: Float32Array, vocab: number): number[] {
  return Array.from({ length: rows.length / vocab }, (_, at) => {
    const logits = rows.subarray(at * vocab, (at + 1) * vocab);
    return logits.indexOf(logits.reduce((x, y) => Math.max(x, y), -Infinity));
  });
}

/** What the model's ONNX file predicts for answers, run by onnxruntime as programs that know nothing of pare would. */
export async function predictedByOnnx(
  { config, weights }: GuardModel,
  prompts: readonly AnsweredPrompt[],
): Promise<Float32Array[]> {
  const { ort, options } = await loadDevice();
  const file = toOnnx(decoderGraph(config, weights), { lowered: true });
  const session = await ort.InferenceSession.create(file, options);
  const { layers, kvHeads, headDim, vocab } = config;
  const empty = new ort.Tensor("float32", new Float32Array(0), [1, kvHeads, 0, headDim]);
  const past = Array.from({ length: layers }, (_, i) => [
    [`past_key_values.${i}.key`, empty],
    [`past_key_values.${i}.value`, empty],
  ]).flat();
  const results: Float32Array[] = [];
  for (const { ids, scored } of prompts) {
    const length = ids.length - 1;
    const whole = (value: (i: number) => number) =>
      new ort.Tensor(
        "int64",
        BigInt64Array.from({ length }, (_, i) => BigInt(value(i))),
        [1, length],
      );
    const feeds = {
      input_ids: whole((i) => ids[i]!),
      attention_mask: whole(() => 1),
      position_ids: whole((i) => i),
      ...Object.fromEntries(past),
    };
    const { logits } = await session.run(feeds, ["logits"]);
    results.push((logits!.data as Float32Array).slice((length - scored) * vocab));
  }
  await session.release();
  return results;
}

/** Times of one conversation at a time, medians. */
export interface Speed extends Record<string, number> {
  /** Reading a prompt and predicting the first token, in milliseconds. */
  readonly firstToken: number;
  /** Prompt tokens read in a second. */
  readonly prefill: number;
  /** Tokens decoded in a second. */
  readonly decode: number;
}

export async function speedOf({ config, weights }: GuardModel, prompts: readonly AnsweredPrompt[]): Promise<Speed> {
  const session = await DecoderSession.open(config, weights);
  const [read, next]: [number[], number[]] = [[], []];
  const tokens: number[] = [];
  for (const { ids, scored } of prompts.slice(0, 20)) {
    session.truncate(0);
    const prompt = ids.slice(0, ids.length - scored);
    const began = performance.now();
    await session.read(prompt);
    const between = performance.now();
    for (const id of ids.slice(-scored)) await session.advance([id]);
    read.push(between - began);
    next.push((performance.now() - between) / scored);
    tokens.push((1000 * prompt.length) / (between - began));
  }
  await session.dispose();
  return { firstToken: median(read), prefill: median(tokens), decode: 1000 / median(next) };
}

const median = (values: readonly number[]): number => values.toSorted((a, b) => a - b)[values.length >> 1]!;
