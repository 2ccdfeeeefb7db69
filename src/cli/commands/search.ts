import { resolve } from "node:path";
import { architectureName } from "../../methods/index.ts";
import { command } from "../command.ts";
import { searchModel } from "../search/search.ts";
import { textTable } from "../table.ts";

/** Finds smaller shapes of a model that answer sooner on this machine. */
export const search = command({
  args: {},
  options: {
    backbone: {
      type: "string",
      value: "model",
      summary: "what shapes are made from; default the model that pare brings",
    },
    prompt: { type: "integer", value: "n", min: 1, default: 256, summary: "tokens of the prompt that is timed" },
    ttft: { type: "number", value: "ms", min: 0, default: 400, summary: "longest time to the first token that counts" },
    trials: { type: "integer", value: "n", min: 2, default: 24, summary: "shapes that are trained on and judged" },
    batch: { type: "integer", value: "n", min: 1, default: 4, summary: "trials that are chosen at once" },
    samples: { type: "integer", value: "n", min: 4, default: 48, summary: "shapes that are timed" },
    layers: { type: "string", value: "4,6,...", summary: "numbers of layers; default from half of the model's" },
    dim: { type: "string", value: "96,...", summary: "widths of the residual stream" },
    ffn: { type: "string", value: "256,...", summary: "widths of the feed-forward layers" },
    attention: { type: "string", value: "list", default: "full,sliding,skip", summary: "kinds of layers' attention" },
    window: { type: "integer", value: "n", min: 1, default: 64, summary: "positions that a sliding layer sees back" },
    train: { type: "string", value: "file", summary: "text like the model's own; the model that pare brings has one" },
    text: { type: "string", value: "file", summary: "text to judge by; default the last tenth of --train" },
    steps: { type: "integer", value: "n", min: 1, default: 40, summary: "training steps of a trial" },
    finalSteps: { type: "integer", value: "n", min: 1, default: 200, summary: "training steps of the shapes written" },
    rate: { type: "number", value: "x", min: 0, default: 1e-3, summary: "highest learning rate" },
    clock: {
      type: "string",
      value: "name",
      choices: ["wall", "processor"],
      default: "wall",
      summary: "what times: processor (one thread) on a machine that has other work",
    },
    repeats: { type: "integer", value: "n", min: 3, default: 7, summary: "runs of each shape that is timed" },
    threads: { type: "integer", value: "count", min: 1, max: 1024, summary: "threads; default one per physical core" },
    seed: { type: "integer", value: "n", min: 0, default: 0, summary: "of what is random" },
    out: {
      type: "string",
      value: "folder",
      short: "o",
      default: "shapes",
      summary: "models, trials.jsonl, front.html",
    },
  },
  graceful: true,
  example: "pare search --backbone my-model --train stories.txt --prompt 512 --ttft 400 --trials 24 --out shapes",
  async run({ options, signal }) {
    const { backbone, prompt, ttft, trials, batch, samples, train, text, clock, repeats, threads, seed } = options;
    const { layers, dim, ffn, attention, window, steps, finalSteps, rate } = options;
    const out = resolve(options.out);
    const result = await searchModel({
      backbone,
      space: { layers, dim, ffn, attention, window },
      prompt,
      ttftMs: ttft,
      samples,
      trials,
      batch,
      training: { steps, finalSteps, batch: 8, length: 128, rate },
      train,
      text,
      clock,
      repeats,
      threads,
      seed,
      out,
      signal,
      note: (line) => process.stderr.write(`${line}\n`),
    });
    if (!result) return { text: "", json: { out, stopped: true } };
    const { winners, latencyR2 } = result;
    const row = (name: string, x: (typeof winners)[0] | typeof result.backbone): string[] => [
      name,
      `${x.parameters}`,
      x.ttftMs.toFixed(1),
      x.decodeTokS.toFixed(0),
      x.loss.toFixed(3),
    ];
    const rows = [
      row("the model itself", result.backbone),
      ...winners.map((winner) => row(architectureName(winner.architecture), winner)),
    ];
    const table = textTable(["shape", "weights", "ms to first token", "tokens/s", "loss"], rows, {
      right: [1, 2, 3, 4],
    });
    const found =
      winners.length > 0
        ? `written to ${out}; front.html shows all trials`
        : `no trial is predicted to take ${ttft} ms or less; front.html in ${out} shows all`;
    return {
      text: `${table}\n\nlatency model: R² ${latencyR2.toFixed(3)} of shapes left out\n${found}`,
      json: { out, ...result },
    };
  },
});
