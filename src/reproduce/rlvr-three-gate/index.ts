import type { Check, Finding, System } from "../system.ts";
import { type Measured, measure } from "./measure.ts";

/** Reinforcement learning and fine-tuning of one base, and what each changed in it. */
export const rlvrThreeGate: System = {
  name: "RLVR three gates",
  family: "interpret",
  summary:
    "tells which weights training changed and why so few, and trains only where reinforcement learning would move",
  paper: {
    title: "The Path Not Taken: RLVR Provably Learns Off the Principals",
    authors: "Zhu, Zhang, Huang, Su, Liu, Zhao, Fedorov, Pirsiavash, Sha, Lee, Pan, Wang, Tian, Tai",
    year: 2025,
    url: "https://arxiv.org/abs/2511.08567",
  },
  file: "src/methods/interpret/updates/analyze.ts",
  command: "npx pare diff <base> <trained> --out report.html",
  claim:
    "at the same learning rate and as many updates, reinforcement learning changes fewer weights than fine-tuning, turns the principal directions less, and moves off them, as the geometry of the weights has it; what looks sparse is the rounding to bfloat16; trained at safe entries only, it learns nearly as well",
  bar: "both gain 8 points; 1.5 times as many entries unchanged, drift and angles of fine-tuning 1.3 times as large, its drift per size no smaller, changes off the principal entries and the same in two runs, unless a layer has other coordinates; all bounds of perturbation theory; 80 % of the gain at safe entries",
  async experiment(setting) {
    const seeds = setting.full ? [setting.seed, setting.seed + 1] : [setting.seed];
    const found: Measured[] = [];
    for (const seed of seeds) found.push(await measure({ ...setting, seed }));
    return findingOf(found);
  },
};

function findingOf(found: readonly Measured[]): Finding {
  const mean = (name: string): number => found.reduce((sum, m) => sum + m[name]!, 0) / found.length;
  const checks: Check[] = [];
  const least = (what: string, ours: number, baseline: number): void => {
    checks.push({ what, ours, baseline, holds: ours >= baseline });
  };
  const most = (what: string, ours: number, baseline: number): void => {
    checks.push({ what, ours, baseline, holds: ours <= baseline });
  };
  const [rl, sft] = [(name: string) => mean(`RL ${name}`), (name: string) => mean(`SFT ${name}`)];
  least("gain of fine-tuning, 8 points", sft("gain"), 0.08);
  least("gain of RL, 8 points", rl("gain"), 0.08);
  least("unchanged by RL, 1.5 times fine-tuning's", rl("unchanged"), 1.5 * sft("unchanged"));
  least("unchanged by RL, 4 points above fine-tuning's", rl("unchanged"), sft("unchanged") + 0.04);
  most("unchanged in single precision, either", Math.max(rl("unchanged as stored"), sft("unchanged as stored")), 0.01);
  most("drift of RL, below fine-tuning's / 1.3", rl("drift"), sft("drift") / 1.3);
  most("angle of RL, below fine-tuning's / 1.3", rl("angle"), sft("angle") / 1.3);
  most("drift per size of RL, no more than fine-tuning's", rl("drift per size"), sft("drift per size"));
  least("RL's changes in small entries, 2 points above chance", rl("in small"), 0.32);
  least("RL's changes in small entries, 1 point above fine-tuning's", rl("in small"), sft("in small") + 0.01);
  most("RL's changes in principal entries, 1 point below chance", rl("in principal"), 0.29);
  most("RL's changes in principal entries, no more than fine-tuning's", rl("in principal"), sft("in principal"));
  least("Jaccard of two RL runs, 0.08 above chance", mean("Jaccard of two runs"), mean("Jaccard by chance") + 0.08);
  most("Jaccard in a layer with other coordinates, 0.02 above chance", mean("Jaccard above chance, moved layer"), 0.02);
  least("Jaccard in the other layer meanwhile, 0.08 above chance", mean("Jaccard above chance, other layer"), 0.08);
  most("matrices with a broken bound", mean("broken bounds"), 0);
  most("logits changed by scrambling", mean("scrambled difference"), 1e-4);
  least("gain at safe entries, 80 % of the whole", mean("safe gain"), 0.8 * rl("settled gain"));
  least("gain at safe entries, at most a point below principal ones", mean("safe gain"), mean("principal gain") - 0.01);
  checks.push({
    what: "drift of PiSSA above LoRA's",
    ours: mean("PiSSA drift"),
    baseline: mean("LoRA drift"),
    holds: mean("PiSSA drift") > mean("LoRA drift"),
  });
  const names = Object.keys(found[0]!);
  const named = (keep: (name: string) => boolean): Record<string, number> =>
    Object.fromEntries(names.filter(keep).map((name) => [name, mean(name)]));
  return {
    checks,
    metrics: named((name) => !name.startsWith("SFT ")),
    baseline: named((name) => name.startsWith("SFT ")),
    notes: [
      "Sums of one digit, a Llama of 2 x 64 (90 thousand weights), AdamW at 1e-5, 200 updates of 128 sequences for both. The gaps are much smaller than those reported of models of billions of weights, where 36 to 92 % stay unchanged.",
      "What sets RL apart at this scale is the noise of its gradient, which AdamW turns into smaller steps: fine-tuning in batches of 8 (`SFT of few`) leaves about as many entries unchanged, turns and drifts as little, and changes entries as small as RL does; RL with 16 times the completions (`RL of many`, full run) comes to fine-tuning's figures, and close to its drift per size.",
      "Drift per size is near that of a random change for both (`drift per size by chance`). In all that was tried for its bar RL's came out between a fifth smaller and a seventh larger than fine-tuning's, with no sign that held from one base to the next: rates from 1e-5 to 1e-4, 60 to 600 updates, 2 and 3 layers, widths of 48, 64 and 128, initial weights from 0.02 to 2 / sqrt(in), bases trained at 3e-3 to 1e-2 for 1000 to 4000 steps, fine-tuning of 145 updates, which moves as far as RL. Only where updates come to a tenth of the weights was RL's smaller each time, and there hardly an entry of either stays unchanged.",
      "At full scale: pare diff <base> <fine-tuned> and pare diff <base> <trained by RL>, on public models of one family, which tell the same figures of each.",
      "Masks are judged where training comes to its end, at 1e-4 (`settled`): before, every entry that is held back costs gain. Random entries as many as the safe ones do as well (`random gain` of the full run).",
    ],
  };
}
