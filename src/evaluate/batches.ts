import { ArgumentError, HostTensor, spec } from "../tensor/index.ts";
import type { ScoredSequence } from "./scorer.ts";

/** Logits of one run take a quarter of a gibibyte at most, unless a single sequence needs more. */
const LOGITS = 2 ** 26;

export interface BatchLimits {
  readonly vocab: number;
  /** Positions that the model has. */
  readonly maxLength: number;
  /** Tokens of one run, padding included. */
  readonly batchTokens: number;
}

/** Sequences that run together, and where each stood among all. */
export interface Batch {
  readonly indices: readonly number[];
  readonly inputs: BatchInputs<HostTensor>;
  /** Scored tokens of each sequence; results lie one after the other. */
  readonly counts: readonly number[];
}

/** What a scoring program takes. The head is applied to the rows that are scored only. */
export interface BatchInputs<T> {
  /** `i64 [batch, seq]`, padded at the end, which a causal model does not see. */
  readonly ids: T;
  /** `i64 [n]`: places in the flattened ids at which the next token is scored. */
  readonly rows: T;
  /** `i64 [n]`: those tokens. */
  readonly targets: T;
}

export const batchSpecs = {
  ids: spec("i64", ["batch", "seq"]),
  rows: spec("i64", ["n"]),
  targets: spec("i64", ["n"]),
};

/**
 * Sequences put together into batches, those of like length beside each other.
 * @throws ArgumentError for a sequence that is longer than the model takes, or that has nothing before a scored token
 */
export function* batchesOf(sequences: readonly ScoredSequence[], limits: BatchLimits): Generator<Batch> {
  for (const sequence of sequences) check(sequence, limits);
  const order = sequences.map((_, i) => i).filter((i) => sequences[i]!.scored > 0);
  order.sort((a, b) => sequences[b]!.ids.length - sequences[a]!.ids.length || a - b);
  for (let start = 0; start < order.length; ) {
    // The first is the longest: its length is the batch's.
    const width = sequences[order[start]!]!.ids.length - 1;
    let end = start;
    for (let rows = 0; end < order.length; end++) {
      rows += sequences[order[end]!]!.scored;
      const full = (end + 1 - start) * width > limits.batchTokens || rows * limits.vocab > LOGITS;
      if (end > start && full) break;
    }
    const indices = order.slice(start, end);
    const chosen = indices.map((i) => sequences[i]!);
    yield { indices, inputs: layOut(chosen, width), counts: chosen.map(({ scored }) => scored) };
    start = end;
  }
}

function check({ ids, scored }: ScoredSequence, { maxLength }: BatchLimits): void {
  if (!Number.isInteger(scored) || scored < 0 || scored >= ids.length)
    throw new ArgumentError(`of ${ids.length} tokens, ${scored} cannot be scored: the first has nothing before it`);
  if (ids.length > maxLength + 1)
    throw new ArgumentError(`a sequence of ${ids.length} tokens is too long: the model reads ${maxLength}`);
}

function layOut(sequences: readonly ScoredSequence[], width: number): BatchInputs<HostTensor> {
  const ids = new BigInt64Array(sequences.length * width);
  const rows: number[] = [];
  const targets: number[] = [];
  sequences.forEach((sequence, i) => {
    const length = sequence.ids.length - 1;
    for (let at = 0; at < length; at++) ids[i * width + at] = BigInt(sequence.ids[at]!);
    for (let at = length - sequence.scored; at < length; at++) {
      rows.push(i * width + at);
      targets.push(sequence.ids[at + 1]!);
    }
  });
  const whole = (values: readonly number[]): HostTensor =>
    new HostTensor("i64", [values.length], BigInt64Array.from(values, BigInt));
  return { ids: new HostTensor("i64", [sequences.length, width], ids), rows: whole(rows), targets: whole(targets) };
}
