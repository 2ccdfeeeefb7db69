import { type BootstrapOptions, bootstrap, type Estimate } from "../bootstrap.ts";
import type { DocumentRecord } from "./evaluate-document.ts";
import type { Task } from "./task.ts";

/** What the metrics of perplexity divide by, and what they make of it. */
const ofText = {
  word_perplexity: { per: "words", of: Math.exp },
  byte_perplexity: { per: "bytes", of: Math.exp },
  bits_per_byte: { per: "bytes", of: (nats: number) => nats / Math.LN2 },
} as const;

/**
 * The metrics of evaluated documents under lm-evaluation-harness's names, each with a bootstrap interval. The standard
 * error of a mean is the usual one (the sample's deviation over the root of its size), of perplexities the bootstrap's.
 */
export function metricsOf(
  task: Task,
  records: readonly DocumentRecord[],
  options: Omit<BootstrapOptions, "of"> = {},
): Record<string, Estimate> {
  if (records.length === 0) return {};
  if (task.kind === "perplexity") {
    return Object.fromEntries(
      Object.entries(ofText).map(([name, { per, of }]) => {
        const terms = records.map(({ values }) => ({ total: values["nats"]!, weight: values[per]! }));
        return [name, bootstrap(terms, { ...options, of })];
      }),
    );
  }
  return Object.fromEntries(
    Object.keys(records[0]!.values).map((name) => {
      const values = records.map((record) => record.values[name]!);
      const interval = bootstrap(
        values.map((total) => ({ total, weight: 1 })),
        options,
      );
      return [name, { ...interval, stderr: standardError(values, interval.value) }];
    }),
  );
}

function standardError(values: readonly number[], mean: number): number {
  if (values.length < 2) return 0;
  return Math.sqrt(values.reduce((sum, value) => sum + (value - mean) ** 2, 0) / (values.length - 1) / values.length);
}
