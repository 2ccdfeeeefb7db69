import { reproduce, type Verdict } from "../../reproduce/index.ts";
import { localWorkbench } from "../../reproduce/node.ts";
import { command } from "../command.ts";
import { systemOf } from "../system.ts";
import { textTable } from "../table.ts";

/** Runs a system's experiment and says whether its claim holds. */
export const reproduceCommand = command({
  args: { system: { summary: "one of those that `pare systems` lists", required: true } },
  options: {
    seed: { type: "integer", value: "n", min: 0, default: 0, summary: "seed of everything random in the experiment" },
    model: { type: "string", value: "model", summary: "on another than the one that pare brings, as run takes it" },
    text: {
      type: "string",
      value: "file",
      summary: "text for it; the last tenth is held out. Default pare's own texts",
    },
    full: { type: "flag", summary: "the full proof, which takes minutes, instead of its short variant" },
  },
  graceful: true,
  async run({ args, options, signal }) {
    const { model, text } = options;
    const bench = localWorkbench({ model, text });
    const verdict = await reproduce(args.system, await systemOf(args.system), {
      seed: options.seed,
      full: options.full,
      bench,
      signal,
      log: (line) => process.stderr.write(`${line}\n`),
    });
    return { ok: verdict.holds, text: told(verdict), json: verdict };
  },
});

function told({ claim, bar, checks, holds, seconds, seed, notes = [] }: Verdict): string {
  const rows = checks.map(({ what, ours, baseline, holds: good }) => [
    what,
    number(ours),
    number(baseline),
    good ? "holds" : "FAILS",
  ]);
  return [
    `claim    ${claim}`,
    `bar      ${bar}`,
    "",
    textTable(["", "ours", "baseline", ""], rows, { right: [1, 2] }),
    "",
    ...notes.map((note) => `note     ${note}`),
    `verdict  ${holds ? "holds" : "does not hold"} (seed ${seed}, ${seconds.toFixed(1)} s)`,
  ].join("\n");
}

const number = (value: number): string => (Number.isInteger(value) ? `${value}` : value.toPrecision(5));
