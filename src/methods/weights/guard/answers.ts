import { type DecoderConfig, decode, headLogits, type Weights } from "../../../models/index.ts";
import { compile, type DeviceOptions } from "../../../runtime/index.ts";
import { flatten, gather, HostTensor, spec, type Tensor } from "../../../tensor/index.ts";
import type { AnsweredPrompt } from "../../../train/index.ts";

/** A decoder that moderates. */
export interface GuardModel {
  readonly config: DecoderConfig;
  readonly weights: Weights;
}

/** Prompts that run together: `ids [batch, seq]`, and the places `rows [n]` of the flattened ids whose next token matters. */
export interface AnswerInputs<T> {
  readonly ids: T;
  readonly rows: T;
}

/** Logits `[n, vocab]` at those places. */
export function answerLogits({ config, weights }: GuardModel, { ids, rows }: AnswerInputs<Tensor>): Tensor {
  return headLogits(config, weights, gather(flatten(decode(config, weights, ids).hidden, 0, 1), rows, 0));
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
  const specs = [{ ids: spec("i64", ["batch", "seq"]), rows: spec("i64", ["n"]) }] as const;
  await using program = await compile((inputs) => select(answerLogits(model, inputs)), specs, device);
  const results: Float32Array[] = [];
  for (let first = 0; first < prompts.length; first += BATCH) {
    const chosen = prompts.slice(first, first + BATCH);
    const length = Math.max(...chosen.map(({ ids }) => ids.length - 1));
    const logits = await program(answerInputs(chosen, length));
    const values = logits.cast("f32").data as Float32Array;
    const width = logits.shape[1]!;
    let at = 0;
    for (const { scored } of chosen) {
      results.push(values.slice(at * width, (at + scored) * width));
      at += scored;
    }
  }
  return results;
}

/** Prompts filled up at the end to `length` tokens, with the places before each token of their answers. */
export function answerInputs(prompts: readonly AnsweredPrompt[], length: number): AnswerInputs<HostTensor> {
  const ids = new BigInt64Array(prompts.length * length);
  const rows: bigint[] = [];
  prompts.forEach((prompt, i) => {
    const last = prompt.ids.length - 1;
    for (let at = 0; at < last; at++) ids[i * length + at] = BigInt(prompt.ids[at]!);
    for (let at = last - prompt.scored; at < last; at++) rows.push(BigInt(i * length + at));
  });
  return {
    ids: new HostTensor("i64", [prompts.length, length], ids),
    rows: new HostTensor("i64", [rows.length], BigInt64Array.from(rows)),
  };
}
