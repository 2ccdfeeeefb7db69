import { type LatencyProbe, processorClock, sessionProbe } from "../../methods/index.ts";
import type { DecoderConfig } from "../../models/index.ts";
import type { Check, Finding, Setting, System } from "../system.ts";
import { attentionChecks } from "./attention.ts";
import { inheritanceChecks } from "./inheritance.ts";
import { Laboratory, PROMPT, REPEATS, space } from "./laboratory.ts";
import { latencyChecks } from "./latency.ts";
import { frontChecks, searchChecks } from "./search.ts";

/** Shapes of a small backbone, timed on this machine and searched for the front of latency and loss. */
export const mobileLlmFlash: System = {
  name: "MobileLLM-Flash",
  family: "weights",
  summary: "finds the shape of a language model that answers soonest on this machine, with weights of a larger model",
  paper: {
    title: "MobileLLM-Flash: Latency-Guided On-Device LLM Design for Industry Scale Deployment",
    authors: "Huang, Fedorov et al.",
    year: 2026,
    url: "https://arxiv.org/abs/2603.15954",
  },
  file: "src/methods/search/architecture/search.ts",
  command: "pare search --backbone <model> --train <text> --prompt 512 --ttft 400 --trials 24 --out <folder>",
  claim:
    "a model of measured latency ranks shapes better than their size does, and a search by it for layers, widths and attention finds models that answer sooner than what they were pruned from at nearly its quality",
  bar: "leave-one-out R² 0.9 and Kendall's tau 0.8 on fresh shapes; inherited weights 0.5 nats ahead of random ones; a model with 0.67 of the latency and 0.15 nats more at most; hypervolume not below random choice's and, with --full, above that of pruning depth or width alone; layers that skip attention faster than sliding ones, and better apart than in a row",
  experiment: (setting) =>
    searchedOn(setting, (backbone) =>
      sessionProbe({
        backbone,
        window: space.window,
        promptTokens: PROMPT,
        decodeTokens: 2,
        repeats: REPEATS,
        // All in turns, so that a stretch in which the machine is busy falls on all alike.
        group: 100,
        clock: processorClock,
        threads: 1,
        warn: setting.log,
      }),
    ),
};

/** The experiment on a device that a probe measures. */
export async function searchedOn(setting: Setting, probe: (backbone: DecoderConfig) => LatencyProbe): Promise<Finding> {
  const laboratory = await Laboratory.open(setting, probe);
  const told = (checks: readonly Check[]): readonly Check[] => {
    for (const { what, ours, baseline, holds } of checks)
      setting.log(`${holds ? "holds" : "FAILS"}: ${what}: ${ours.toPrecision(4)}, ${baseline.toPrecision(4)}`);
    return checks;
  };
  const latency = await latencyChecks(setting, laboratory);
  const checks = [...told(latency.checks)];
  checks.push(...told(await attentionChecks(setting, laboratory)));
  checks.push(...told(await inheritanceChecks(setting, laboratory)));
  const front = await frontChecks(setting, laboratory, latency.model);
  checks.push(...told(front.checks));
  if (setting.full) checks.push(...told(await searchChecks(setting, laboratory, latency.model)));
  return {
    checks,
    metrics: { ...latency.metrics, ...front.metrics },
    baseline: {},
    notes: [
      `latency is the processor time of one thread for a prompt of ${PROMPT} tokens: the lower quartile of ${REPEATS} or more runs in turns, since what else a machine does comes in stretches and only adds`,
      "the search sees one part of the held-out text, and its front is judged on another",
    ],
  };
}
