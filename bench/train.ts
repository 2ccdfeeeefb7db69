import type { Measured } from "./harness.ts";
import { batch, flopsPerStep } from "./model.ts";
import type { Bench } from "./report.ts";

const ours = { name: "pare", module: "./ours.ts" };
const peers = [
  { name: "tfjs-wasm", module: "./peers/tfjs.ts" },
  { name: "jax-js-wasm", module: "./peers/jax-js.ts" },
];

/** Training steps of the bench's model: loss, gradients and AdamW. */
export const train: Bench = {
  name: "train",
  ours,
  peers,
  tokens: batch.tokens,
  flops: flopsPerStep,
  check(measured) {
    const losses = (name: string): Measured["values"] => measured[name]!.values;
    for (const { name } of this.peers.concat(ours)) {
      const [first, last] = [losses(name)[0]!, losses(name).at(-1)!];
      if (!(last < first)) throw new Error(`${name} does not learn: its loss went from ${first} to ${last}`);
    }
    const [first] = losses(ours.name);
    for (const { name } of peers) {
      const [theirs] = losses(name);
      if (Math.abs(theirs! - first!) > 1e-2)
        throw new Error(`${name} trains another model: its first loss is ${theirs}, ours ${first}`);
    }
  },
};
