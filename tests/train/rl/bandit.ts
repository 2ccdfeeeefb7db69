import { gather, HostTensor as Host, type HostTensor, mul, Rng } from "../../../src/tensor/index.ts";
import type { BatchSource, Completion, Policy, Prompt, Rollouts } from "../../../src/train/index.ts";

type Table = { readonly table: HostTensor };

/** A policy of one token: row `s` of a table has the logits of the arms when the prompt is `[s]`. */
export function tablePolicy(rows: readonly (readonly number[])[]): Policy<Table, Prompt> {
  return {
    weights: { table: Host.from(rows) },
    logits: ({ table }, ids) => mul(gather(table, ids, 0), 1),
    rollouts: async () => new TableRollouts(rows),
  };
}

class TableRollouts implements Rollouts {
  #rows: readonly (readonly number[])[];

  constructor(rows: readonly (readonly number[])[]) {
    this.#rows = rows;
  }

  load({ table }: Readonly<Record<string, HostTensor>>): void {
    const [count, width] = table!.shape as [number, number];
    const numbers = table!.toArray();
    this.#rows = Array.from({ length: count }, (_, i) => numbers.slice(i * width, (i + 1) * width));
  }

  async sample(
    prompts: readonly Prompt[],
    { samples = 1, seed = 0 }: Parameters<Rollouts["sample"]>[1],
  ): Promise<Completion[][]> {
    const rng = new Rng(seed);
    return prompts.map(({ ids }) => {
      const p = probabilities(this.#rows[ids[0]!]!);
      return Array.from({ length: samples }, () => {
        const arm = rng.choice([...p.keys()], p);
        return { tokens: [arm], logProbs: [Math.log(p[arm]!)], ended: false };
      });
    });
  }

  async dispose(): Promise<void> {}
}

export function probabilities(logits: readonly number[]): number[] {
  const powers = logits.map((x) => Math.exp(x));
  const total = powers.reduce((a, b) => a + b, 0);
  return powers.map((x) => x / total);
}

/** The same prompts in every step. */
export function always<P>(prompts: readonly P[]): BatchSource<readonly P[]> {
  return { next: () => prompts, state: () => null, restore: () => undefined };
}
