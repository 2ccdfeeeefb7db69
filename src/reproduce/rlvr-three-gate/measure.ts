import {
  type BitMask,
  jaccard,
  type MaskKind,
  median,
  placeOf,
  type Scramble,
  scrambleGeometry,
  summaryOf,
  trainingMasks,
  withSpectralAdapters,
} from "../../methods/index.ts";
import { decoderLogits, type Weights } from "../../models/index.ts";
import { compile } from "../../runtime/index.ts";
import { HostTensor, Rng } from "../../tensor/index.ts";
import { mergeLora, withLora } from "../../train/index.ts";
import type { Setting } from "../system.ts";
import { accuracy, baseModel, config, sums } from "./addition.ts";
import { fineTune, reinforce, type Update, updateOf } from "./runs.ts";

/** Share of entries in the masks that training is held to. */
const HELD = 0.5;
const RANK = 8;
/** Where most is told by where weights move: as far as large models' are moved. */
const EARLY = { rate: 1e-5, updates: 200 };
/** Fine-tuning whose gradient is about as noisy as that of RL. */
const FEW = { sequences: 8 };
/** RL whose gradient is about as free of noise as that of fine-tuning. */
const MANY = { sequences: 2048, samples: 16 };
/** Where training comes to an end, which masks are about: whether the same is reached with fewer entries. */
const SETTLED = { rate: 1e-4, updates: 200 };
/** The layer whose coordinates are changed. */
const SCRAMBLED = 0;
const kinds: readonly Scramble[] = ["vo", "qk", "heads", "ffn"];

/** What the bars are about, for one seed. */
export type Measured = Readonly<Record<string, number>>;

/** All runs of one seed, and what they changed. */
export async function measure(setting: Setting): Promise<Measured> {
  const { seed, full, signal } = setting;
  const base = await baseModel(setting);
  const { sampled } = await accuracy(base);
  const look = lookAt(setting, base, sampled);
  const draw = (index: number): number => 10 * seed + index;

  const sft = await look("fine-tuning", await fineTune(setting, base, { ...EARLY, draw: draw(1) }));
  const noisy = await look(
    "fine-tuning, few at a time",
    await fineTune(setting, base, { ...EARLY, ...FEW, draw: draw(1) }),
  );
  const rl = await look("RL", await reinforce(setting, base, { ...EARLY, draw: draw(2) }));
  const again = await look("RL, drawn again", await reinforce(setting, base, { ...EARLY, draw: draw(3) }));
  const quiet = full
    ? await look("RL, many at a time", await reinforce(setting, base, { ...EARLY, ...MANY, draw: draw(2) }))
    : null;
  const drifts = await adapterDrifts(setting, base, look);

  const settled = {
    SFT: await look("fine-tuning to its end", await fineTune(setting, base, { ...SETTLED, draw: draw(4) })),
    RL: await look("RL to its end", await reinforce(setting, base, { ...SETTLED, draw: draw(5) })),
  };
  const held: Record<string, number> = {};
  for (const kind of ["safe", "principal", ...(full ? ["random"] : [])] as MaskKind[]) {
    const masks = await trainingMasks(base, { kind, share: HELD, rng: new Rng(seed), signal });
    const weights = await reinforce(setting, base, { ...SETTLED, draw: draw(5), masks });
    held[`${kind} gain`] = (await look(`RL to its end, ${kind} entries`, weights)).gain;
  }

  return {
    base: sampled,
    ...figures("SFT", sft),
    ...figures("SFT of few", noisy),
    ...figures("RL", rl),
    ...(quiet && figures("RL of many", quiet)),
    "drift per size by chance": chanceDrift(rl.update),
    ...figures("SFT settled", settled.SFT),
    ...figures("RL settled", settled.RL),
    ...consistency(rl.update.changed, again.update.changed),
    ...held,
    ...drifts,
    ...(await intervention(setting, base, look, rl.update, draw(3))),
    "broken bounds": look.seen.flatMap(({ report }) =>
      report.matrices.filter((m) => !summaryOf(m.name, [m]).boundsHold),
    ).length,
    "scrambled difference": await scrambledDifference(base, seed),
  };
}

interface Looked {
  readonly update: Update;
  /** In sampled accuracy. */
  readonly gain: number;
}

/** What a run made of the model that it began with, by default the base. */
interface Look {
  (what: string, weights: Weights, before?: Weights): Promise<Looked>;
  readonly seen: Update[];
}

function lookAt(setting: Setting, base: Weights, sampled: number): Look {
  const seen: Update[] = [];
  const look = async (what: string, weights: Weights, before = base): Promise<Looked> => {
    const update = await updateOf(setting, before, weights);
    const gain = (await accuracy(weights)).sampled - sampled;
    seen.push(update);
    const { sparsity, nss } = update.summary;
    setting.log(
      `seed ${setting.seed}, ${what}: ${(100 * gain).toFixed(1)} points, ${(100 * sparsity).toFixed(1)} % unchanged, drift ${nss.toExponential(2)}`,
    );
    return { update, gain };
  };
  return Object.assign(look, { seen });
}

function figures(run: string, { update: { summary }, gain }: Looked): Measured {
  return {
    [`${run} gain`]: gain,
    [`${run} unchanged`]: summary.sparsity,
    [`${run} unchanged as stored`]: summary.storedSparsity,
    [`${run} drift`]: summary.nss,
    [`${run} angle`]: summary.angle,
    [`${run} size`]: summary.size,
    [`${run} drift per size`]: summary.driftPerSize!,
    [`${run} in small`]: summary.overlaps.small.share!,
    [`${run} in principal`]: summary.overlaps.principal.share!,
  };
}

/**
 * Drift per size of a random change, the median over the matrices: of its energy, `1 / max(rows, cols)` falls on the
 * diagonal in singular coordinates, which is what moves singular values.
 */
function chanceDrift({ report }: Update): number {
  const all = report.matrices.map(({ shape }) => 1 / Math.sqrt(Math.max(...shape)));
  return median(all)!;
}

/** Means over the matrices of how far two runs changed the same entries, and of what chance gives. */
function consistency(a: ReadonlyMap<string, BitMask>, b: ReadonlyMap<string, BitMask>): Measured {
  const pairs = Array.from(a, ([name, mask]) => [mask, b.get(name)!] as const);
  return {
    "Jaccard of two runs": mean(pairs.map(([x, y]) => jaccard(x, y)!)),
    "Jaccard by chance": mean(pairs.map(([x, y]) => byChance(x, y))),
  };
}

const mean = (values: readonly number[]): number => values.reduce((sum, x) => sum + x, 0) / values.length;
const byChance = ({ share: p }: BitMask, { share: q }: BitMask): number => (p * q) / (p + q - p * q);

/** How far RL drifts through adapters of the same rank. */
async function adapterDrifts(setting: Setting, base: Weights, look: Look): Promise<Measured> {
  const { seed } = setting;
  const starts: Record<string, Weights> = {
    LoRA: withLora(base, { rank: RANK, alpha: RANK, rng: new Rng(seed).fork("adapters") }),
    PiSSA: await withSpectralAdapters(base, { rank: RANK, part: "principal" }),
  };
  const drifts: Record<string, number> = {};
  for (const [kind, start] of Object.entries(starts)) {
    const trained = await reinforce(setting, start, { ...EARLY, draw: 10 * seed + 2, adapters: true });
    const { update } = await look(`RL, ${kind}`, await mergeLora(trained, { threads: 1 }));
    drifts[`${kind} drift`] = update.summary.nss;
  }
  return drifts;
}

/**
 * RL from a base of which one layer has other coordinates: its attention turned, its heads and hidden neurons in another
 * order. How far that changes the entries that RL changed in the base, above chance, in that layer and in the other.
 */
async function intervention(
  setting: Setting,
  base: Weights,
  look: Look,
  { changed }: Update,
  draw: number,
): Promise<Measured> {
  const rng = new Rng(setting.seed).fork("intervention");
  const moved = await scrambleGeometry(config, base, { layers: [SCRAMBLED], kinds, rng });
  const weights = await reinforce(setting, moved, { ...EARLY, draw });
  const { update } = await look(`RL, layer ${SCRAMBLED} in other coordinates`, weights, moved);
  const excess = (of: (name: string) => boolean): number => {
    const chosen = Array.from(changed, ([name, mask]) => [name, mask, update.changed.get(name)!] as const);
    return mean(chosen.filter(([name]) => of(name)).map(([, a, b]) => jaccard(a, b)! - byChance(a, b)));
  };
  const moves = (name: string): boolean => placeOf(name).layer === SCRAMBLED;
  return {
    "Jaccard above chance, moved layer": excess(moves),
    "Jaccard above chance, other layer": excess((name) => !moves(name)),
  };
}

/** The largest difference of logits that rotating and permuting all layers makes. */
async function scrambledDifference(base: Weights, seed: number): Promise<number> {
  const scrambled = await scrambleGeometry(config, base, {
    layers: [0, 1],
    kinds,
    rng: new Rng(seed).fork("scramble"),
  });
  const ids = HostTensor.from(sums.map((sum) => sum.ids.map(BigInt)));
  await using program = await compile(
    (tokens) => [decoderLogits(config, base, tokens), decoderLogits(config, scrambled, tokens)],
    [ids],
    { threads: 1 },
  );
  const [a, b] = await program(ids);
  return a!.toArray().reduce((most, x, i) => Math.max(most, Math.abs(x - b!.at(i))), 0);
}
