import { bootstrap, compareModels, DecoderScorer, perplexity } from "../evaluate/index.ts";
import type { Tokenizer } from "../formats/index.ts";
import { complete, DecoderSession } from "../generate/index.ts";
import type { DecoderConfig, Weights } from "../models/index.ts";
import { Weight } from "../nn/index.ts";
import type { DeviceOptions } from "../runtime/index.ts";
import { byteLength, sizeOf } from "../tensor/index.ts";
import type { Variant } from "./report.ts";

/** A model to be measured. */
export interface Subject {
  readonly name: string;
  readonly config: DecoderConfig;
  readonly weights: Weights;
  readonly tokenizer: Tokenizer;
  /** Of its weights as they are stored; by default as they are in memory. */
  readonly bytes?: number;
  readonly layerErrors?: Readonly<Record<string, number>>;
}

export interface MeasureOptions extends DeviceOptions {
  /** What the subject was made from, for KL divergence and agreement. */
  readonly reference?: Subject | null;
  /** Text that none of the models has seen. */
  readonly tokens: readonly number[];
  readonly prompt: string;
  /** Tokens of the sample at most. Default 80. */
  readonly sampleTokens?: number;
}

/** What of a variant can be measured beside other work: its size, what it predicts, and how it writes. */
export type Quality = Omit<Variant, "speed" | "peakBytes" | "loadSeconds">;

/** The same luck for all models; without any, small ones go round in circles. */
const drawing = { temperature: 0.7, topP: 0.95, seed: 1 };

/** Measures a model's size and quality. */
export async function measureQuality(
  subject: Subject,
  { reference = null, tokens, prompt, sampleTokens = 80, ...device }: MeasureOptions,
): Promise<Quality> {
  const { name, config, weights, tokenizer, layerErrors = {} } = subject;
  const bytes = subject.bytes ?? bytesOf(weights);
  const scorer = await DecoderScorer.open(subject, device);
  const { windows } = await perplexity(scorer, tokens);
  await scorer.dispose();
  const terms = windows.map(({ nats, tokens: count }) => ({ total: nats, weight: count }));
  const comparison = reference && (await compareModels(reference, subject, tokens, device));
  await using session = await DecoderSession.open(config, weights, device);
  const { text } = await complete(session, tokenizer, prompt, { maxTokens: sampleTokens, ...drawing });
  return {
    name,
    bytes,
    bitsPerWeight: (8 * bytes) / entriesOf(weights),
    perplexity: bootstrap(terms, { of: Math.exp }),
    kl: comparison?.meanKl ?? null,
    topAgreement: comparison?.topAgreement ?? null,
    layerErrors,
    sample: text,
  };
}

/** Bytes that weights take as they are represented. */
export function bytesOf(weights: Weights): number {
  return total(weights, (w) => (w instanceof Weight ? w.bytes : byteLength(w.dtype, sizeOf(w.shape) as number)));
}

const entriesOf = (weights: Weights): number => total(weights, (w) => sizeOf(w.shape) as number);

const total = (weights: Weights, of: (weight: Weights[string]) => number): number =>
  Object.values(weights).reduce((sum, weight) => sum + of(weight), 0);
