import type { Architecture, AttentionKind } from "../../methods/index.ts";
import type { Check, Setting } from "../system.ts";
import type { Laboratory } from "./laboratory.ts";

/** Which layers go without full attention, and how. */
export async function attentionChecks(setting: Setting, laboratory: Laboratory): Promise<Check[]> {
  const kinds = { f: "full", w: "sliding", "-": "skip" } as const;
  const shape = (pattern: string): Architecture => ({
    ...laboratory.whole,
    attention: Array.from(pattern, (letter): AttentionKind => kinds[letter as keyof typeof kinds]),
  });
  const [skipping, sliding] = [shape("f-f-f-"), shape("fwfwfw")];
  const [skip, slide] = await laboratory.probe.measure([skipping, sliding], setting.signal);
  const [ours, baseline] = [skip?.ttftMs ?? Number.NaN, slide?.ttftMs ?? Number.NaN];
  // Four of six layers skip in both.
  const apart = await laboratory.loss(shape("f--f--"));
  const together = await laboratory.loss(shape("f----f"));
  return [
    { what: "ms to the first token, every other layer skips, and slides", ours, baseline, holds: ours < baseline },
    {
      what: "loss of four layers that skip apart, and in a row",
      ours: apart,
      baseline: together,
      holds: apart <= together - 0.02,
    },
  ];
}
