import { paretoqConvert, parq, questWeights } from "../../src/methods/index.ts";
import type { Variant } from "../ours.ts";

const asIs: Variant = { weights: async (dense) => dense, optimizer: (base) => base };

const paretoq = (bits: 1 | 1.58 | 2 | 3 | 4): Variant => ({
  ...asIs,
  weights: (dense) => paretoqConvert(dense, { bits }),
});

/** Matrices of the layers on levels of their rows, searched for every ten steps. */
const parqTo = (bits: 0 | 1 | 2 | 4, levels: "lsbq" | "lsbq-optimal" = "lsbq"): Variant => ({
  ...asIs,
  optimizer: (base) =>
    parq(base, [{ match: (path) => path.includes("_proj."), bits, levels }], { annealEnd: 1000, steepness: 10 }),
});

/** Ways to train for few bits, by name; `plain` is none. */
export const variants: Readonly<Record<string, Variant>> = {
  plain: asIs,
  "paretoq 1 bit": paretoq(1),
  "paretoq 2 bits": paretoq(2),
  "paretoq 4 bits": paretoq(4),
  "parq 1 bit": parqTo(1),
  "parq 2 bits": parqTo(2),
  "parq 2 bits optimal": parqTo(2, "lsbq-optimal"),
  "parq 4 bits": parqTo(4),
  "quest 4 bits": { ...asIs, weights: async (dense) => questWeights(dense, { weightBits: 4, inputBits: 4 }) },
};
