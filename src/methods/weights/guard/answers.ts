import { type DecoderConfig, decode, headLogits, type Weights } from "../../../models/index.ts";
import { compile, type DeviceOptions } from "../../../runtime/index.ts";
import {
  add,
  asTensor,
  concat,
  expand,
  flatten,
  gather,
  HostTensor,
  iota,
  reshape,
  scaledDotProductAttention,
  spec,
  type Tensor,
  transpose,
} from "../../../tensor/index.ts";
import type { AnsweredPrompt } from "../../../train/index.ts";

/** A decoder that moderates. */
export interface GuardModel {
  readonly config: DecoderConfig;
  readonly weights: Weights;
}

/**
 * Prompts that run together, without the tokens that all begin with: `ids [batch, seq]`, and the places `rows [n]` of the
 * flattened ids whose next token matters.
 */
export interface AnswerInputs<T> {
  readonly ids: T;
  readonly rows: T;
}

/** Logits `[n, vocab]` at those places. @param prefix the tokens that all prompts begin with; see `commonPrefix` */
export function answerLogits(
  { config, weights }: GuardModel,
  { ids, rows }: AnswerInputs<Tensor>,
  prefix: readonly number[] = [],
): Tensor {
  const hidden = prefix.length === 0 ? decode(config, weights, ids).hidden : behind(config, weights, prefix, ids);
  return headLogits(config, weights, gather(flatten(hidden, 0, 1), rows, 0));
}

/** Hidden states `[batch, seq, dim]` of texts that go on from one beginning, which is read once for all of them. */
function behind(config: DecoderConfig, weights: Weights, prefix: readonly number[], ids: Tensor): Tensor {
  const { heads, kvHeads, headDim, window } = config;
  const begun = decode(config, weights, asTensor(idsTensor([prefix], prefix.length))).rows;
  const separate = (x: Tensor, count: number): Tensor =>
    transpose(reshape(x, [...x.shape.slice(0, 2), count, headDim], [x]), [0, 2, 1, 3]);
  const [batch, seq] = ids.shape as [number, number];
  const places = add(iota(seq, [ids]), prefix.length);
  return decode(config, weights, ids, {
    positions: expand(places, [batch, seq], [ids]),
    attend(layer, q, k, v, options) {
      const all = (name: "keys" | "values", now: Tensor): Tensor => {
        const past = begun[layer]![name];
        return separate(concat([expand(past, [batch, ...past.shape.slice(1)], [ids]), now], 1), kvHeads);
      };
      const reach = window[layer] ?? null;
      const mixed = scaledDotProductAttention(separate(q, heads), all("keys", k), all("values", v), {
        ...options,
        causal: true,
        ...(reach !== null && { window: reach }),
      });
      return flatten(transpose(mixed, [0, 2, 1, 3]), 2, 3);
    },
  }).hidden;
}

/** What all prompts begin with, the task and the policy at least; a token before the answer is left to each. */
export function commonPrefix(prompts: readonly AnsweredPrompt[]): number[] {
  const first = prompts[0]?.ids ?? [];
  let length = first.length;
  for (const { ids, scored } of prompts) {
    length = Math.min(length, ids.length - scored - 1);
    for (let i = 0; i < length; i++) if (ids[i] !== first[i]) length = i;
  }
  return first.slice(0, Math.max(0, length));
}

/** Prompts of one run at most. */
const BATCH = 32;

/**
 * The logits at which a model predicts each token of the answers, by prompt: `[scored, vocab]` each.
 * @param select what of the logits is returned; default all
 */
export async function predictAnswers(
  model: GuardModel,
  prompts: readonly AnsweredPrompt[],
  { select = (logits) => logits, device = {} }: { select?: (logits: Tensor) => Tensor; device?: DeviceOptions } = {},
): Promise<Float32Array[]> {
  const prefix = commonPrefix(prompts);
  const specs = [{ ids: spec("i64", ["batch", "seq"]), rows: spec("i64", ["n"]) }] as const;
  await using program = await compile((inputs) => select(answerLogits(model, inputs, prefix)), specs, device);
  const results = new Array<Float32Array>(prompts.length);
  // Prompts of like length together, so that little is filled up.
  const order = prompts.map((_, i) => i).sort((a, b) => prompts[a]!.ids.length - prompts[b]!.ids.length);
  for (let first = 0; first < order.length; first += BATCH) {
    const chosen = order.slice(first, first + BATCH);
    const length = prompts[chosen.at(-1)!]!.ids.length - 1;
    const logits = await program(
      answerInputs(
        chosen.map((i) => prompts[i]!),
        length,
        prefix.length,
      ),
    );
    const values = logits.cast("f32").data as Float32Array;
    const width = logits.shape[1]!;
    let at = 0;
    for (const i of chosen) {
      const { scored } = prompts[i]!;
      results[i] = values.slice(at * width, (at + scored) * width);
      at += scored;
    }
  }
  return results;
}

/**
 * Prompts filled up at the end to `length` tokens, with the places before each token of their answers.
 * @param skipped tokens that all begin with and that are left out
 */
export function answerInputs(
  prompts: readonly AnsweredPrompt[],
  length: number,
  skipped = 0,
): AnswerInputs<HostTensor> {
  const width = length - skipped;
  const ids = idsTensor(
    prompts.map((prompt) => prompt.ids.slice(skipped, -1)),
    width,
  );
  const rows = prompts.flatMap((prompt, i) => {
    const last = prompt.ids.length - 1 - skipped;
    return Array.from({ length: prompt.scored }, (_, at) => BigInt(i * width + last - prompt.scored + at));
  });
  return { ids, rows: new HostTensor("i64", [rows.length], BigInt64Array.from(rows)) };
}

/** `i64 [rows, length]`, filled up with zeros. */
function idsTensor(rows: readonly (readonly number[])[], length: number): HostTensor {
  const data = new BigInt64Array(rows.length * length);
  rows.forEach((ids, i) => {
    for (const [at, id] of ids.entries()) data[i * length + at] = BigInt(id);
  });
  return new HostTensor("i64", [rows.length, length], data);
}
