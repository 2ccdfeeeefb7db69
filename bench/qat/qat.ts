import { type Command, UsageError } from "../command.ts";
import { compare, median } from "../harness.ts";
import { batch } from "../model.ts";
import { heading, loadAverages, machine } from "../report.ts";
import { variants } from "./variants.ts";

/** How long each way works in a round, in seconds; a step that has begun is finished. */
const turn = 1;

/** Training steps for few bits beside the plain step of the same model. */
export const qat: Command = {
  options: { only: "" },
  async run({ rounds, threads, options, log }) {
    const chosen = options.only ? options.only.split(",") : Object.keys(variants).slice(1);
    const unknown = chosen.find((name) => !Object.hasOwn(variants, name));
    if (unknown !== undefined)
      throw new UsageError(`there is no way "${unknown}" to train; there are ${Object.keys(variants).join(", ")}`);
    const load = loadAverages();
    const names = ["plain", ...chosen.filter((name) => name !== "plain")];
    const entries = names.map((name) => ({ name, module: "./qat/step.ts", settings: name }));
    const measured = await compare(entries, { rounds, threads, seconds: turn, log });
    const figures = Object.fromEntries(
      names.map((name) => {
        const { stepSeconds, cpuSeconds, values, peakBytes } = measured[name]!;
        if (!(values.at(-1)! < values[0]!))
          throw new Error(`${name} does not learn: its loss went from ${values[0]} to ${values.at(-1)}`);
        const seconds = median(stepSeconds);
        return [name, { tokensPerSecond: batch.tokens / seconds, seconds, cpuSeconds: median(cpuSeconds), peakBytes }];
      }),
    );
    const plain = figures.plain!;
    const ratios = Object.fromEntries(
      chosen.map((name) => [
        name,
        { seconds: figures[name]!.seconds / plain.seconds, cpuSeconds: figures[name]!.cpuSeconds / plain.cpuSeconds },
      ]),
    );
    const result = { name: "qat", machine: machine(), load, figures, ratios };
    const rows = names.map((name) => {
      const { seconds, cpuSeconds, peakBytes } = figures[name]!;
      const ratio = ratios[name];
      const times = ratio ? `${ratio.seconds.toFixed(2)} / ${ratio.cpuSeconds.toFixed(2)}` : "";
      return `| ${name} | ${(1000 * seconds).toFixed(0)} ms | ${(1000 * cpuSeconds).toFixed(0)} ms | ${times} | ${(peakBytes / 2 ** 20).toFixed(0)} MiB |`;
    });
    const text = [
      ...heading("qat", result.machine, load),
      "",
      "| way | step | processor time | times the plain step (clock / processor) | peak |",
      "| --- | --- | --- | --- | --- |",
      ...rows,
    ].join("\n");
    return { result, text };
  },
};
