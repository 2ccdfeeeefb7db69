import { targetLogProbs } from "../nn/index.ts";
import { compile, type DeviceOptions } from "../runtime/index.ts";
import { ArgumentError, argMax, equal, exp, logSoftmax, mul, sub, sum as sumOf, type Tensor } from "../tensor/index.ts";
import { type BatchInputs, batchesOf, batchSpecs } from "./batches.ts";
import { type BootstrapOptions, bootstrap, type Estimate, quantile } from "./bootstrap.ts";
import { type DecoderModel, logitsAt } from "./decoder-scorer.ts";
import { sum } from "./likelihood.ts";
import { stridedWindows, type WindowOptions } from "./perplexity.ts";

export interface CompareOptions extends WindowOptions, DeviceOptions {
  /** Tokens of one run. Default 1024. */
  readonly batchTokens?: number;
  /** Of the intervals, which draw windows. */
  readonly bootstrap?: Pick<BootstrapOptions, "seed" | "resamples" | "confidence">;
}

/** How far another model's predictions are from those of a reference, token by token. */
export interface Comparison {
  /** Places at which the two were compared. */
  readonly tokens: number;
  /** Mean over places of KL(reference || other) between the distributions of the next token, in nats. */
  readonly meanKl: Estimate;
  readonly medianKl: number;
  /** What 99 of 100 places stay below. */
  readonly kl99: number;
  readonly maxKl: number;
  /** Share of places at which both find the same token most likely. */
  readonly topAgreement: Estimate;
  /** Of each model on the text itself. */
  readonly perplexity: { readonly reference: number; readonly other: number };
}

/**
 * Compares two models on the same tokens, such as a model and what compression made of it. Both run in one program
 * that returns four numbers per token, so that logits are never held.
 * @param tokens the first is only read, all others are predicted
 * @throws ArgumentError when the vocabularies differ or there are fewer than two tokens
 */
export async function compareModels(
  reference: DecoderModel,
  other: DecoderModel,
  tokens: readonly number[],
  { window, stride, batchTokens = 1024, bootstrap: resampling, ...device }: CompareOptions = {},
): Promise<Comparison> {
  const { vocab, maxPositions } = reference.config;
  if (vocab !== other.config.vocab)
    throw new ArgumentError(
      `models with ${vocab} and ${other.config.vocab} tokens in their vocabularies do not compare`,
    );
  if (tokens.length < 2) throw new ArgumentError("comparing models takes at least two tokens");
  const maxLength = Math.min(maxPositions, other.config.maxPositions);
  const sequences = stridedWindows(tokens, undefined, { window: window ?? maxLength, ...(stride && { stride }) });

  const compared = (inputs: BatchInputs<Tensor>) => {
    const [a, b] = [logitsAt(reference, inputs), logitsAt(other, inputs)];
    const [p, q] = [logSoftmax(a, -1), logSoftmax(b, -1)];
    return {
      kl: sumOf(mul(exp(p), sub(p, q)), { axes: -1 }),
      agree: equal(argMax(a, -1), argMax(b, -1)),
      reference: targetLogProbs(a, inputs.targets),
      other: targetLogProbs(b, inputs.targets),
    };
  };
  await using program = await compile(compared, [batchSpecs], { ...device, names: ["in"] });
  const kl: number[] = [];
  const nats = { reference: 0, other: 0 };
  const terms: { kl: number; agree: number; tokens: number }[] = [];
  for (const { indices, inputs, counts } of batchesOf(sequences, { vocab, maxLength, batchTokens })) {
    const result = await program(inputs);
    const values = result.kl.toArray();
    const agree = result.agree.toArray();
    nats.reference -= sum(result.reference.toArray());
    nats.other -= sum(result.other.toArray());
    kl.push(...values);
    let at = 0;
    indices.forEach((index, i) => {
      const end = at + counts[i]!;
      terms[index] = { kl: sum(values.slice(at, end)), agree: sum(agree.slice(at, end)), tokens: counts[i]! };
      at = end;
    });
  }
  kl.sort((a, b) => a - b);
  const over = (key: "kl" | "agree"): Estimate =>
    bootstrap(
      terms.map((term) => ({ total: term[key], weight: term.tokens })),
      resampling,
    );
  return {
    tokens: kl.length,
    meanKl: over("kl"),
    medianKl: quantile(kl, 0.5),
    kl99: quantile(kl, 0.99),
    maxKl: kl.at(-1)!,
    topAgreement: over("agree"),
    perplexity: { reference: Math.exp(nats.reference / kl.length), other: Math.exp(nats.other / kl.length) },
  };
}
