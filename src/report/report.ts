/** A measured value with the ends of its confidence interval. */
export interface Interval {
  readonly value: number;
  readonly low: number;
  readonly high: number;
}

/** One model of a report: the original, or what something made of it. What was not measured is null. */
export interface Variant {
  readonly name: string;
  /** Of all weights as they are represented. */
  readonly bytes: number;
  /** Averaged over all weights, scales and other overhead included. */
  readonly bitsPerWeight: number;
  /** On the report's text. */
  readonly perplexity: Interval;
  /** Mean KL divergence of its next-token distributions from the original's, in nats. */
  readonly kl: Interval | null;
  /** Share of places where it finds the same token most likely as the original. */
  readonly topAgreement: Interval | null;
  readonly speed: Speed | null;
  /** Resident memory that running it added at most, in bytes. */
  readonly peakBytes: number | null;
  readonly loadSeconds: number | null;
  /** Relative output error of each compressed matrix on calibration text, by name. */
  readonly layerErrors: Readonly<Record<string, number>>;
  /** How it continues the report's prompt, drawn with the same seed for all. */
  readonly sample: string;
}

/** In tokens a second. */
export interface Speed {
  readonly prefill: number;
  readonly decode: number;
}

/** How often values fall between neighbouring edges, for several models. */
export interface Histogram {
  readonly title: string;
  readonly edges: readonly number[];
  /** By variant, one less than edges. */
  readonly counts: Readonly<Record<string, readonly number[]>>;
}

/** What compressing each matrix alone to so many bits costs. */
export interface Sensitivity {
  readonly format: string;
  /** Increase of the loss in nats a token, by matrix. */
  readonly increase: Readonly<Record<string, number>>;
  /** The matrices that got this form. */
  readonly chosen: readonly string[];
}

/** What keeping keys and values in 8 bits does while a model generates, besides what became of its weights. */
export interface CacheEffect {
  /** The variant that it was measured on. */
  readonly variant: string;
  /** Tokens that were read one by one, each with all before it in the cache. */
  readonly tokens: number;
  /** Bytes of the keys and values of one token. */
  readonly bytesPerToken: CacheFormats;
  /** On those tokens. */
  readonly perplexity: CacheFormats;
  /** Mean KL divergence of the next-token distributions from those with the plain cache, in nats. */
  readonly kl: number;
  /** Share of places where both find the same token most likely. */
  readonly topAgreement: number;
}

interface CacheFormats {
  readonly f32: number;
  readonly int8: number;
}

/** What compression cost. The first variant is the original. */
export interface Report {
  readonly title: string;
  readonly machine: string;
  /** The text that perplexity was measured on, and how many tokens of it. */
  readonly text: { readonly name: string; readonly tokens: number };
  readonly prompt: string;
  readonly variants: readonly Variant[];
  readonly histograms: readonly Histogram[];
  readonly sensitivity: readonly Sensitivity[];
  /** Null where it was not measured. */
  readonly cache: CacheEffect | null;
}
