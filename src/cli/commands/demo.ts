import { mkdtemp, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join, resolve } from "node:path";
import { packedDecodeSpeeds, size100m } from "../../evaluate/index.ts";
import {
  calibrationWindows,
  compressDecoder,
  type MatrixMethod,
  memorySource,
  methodOf,
  planFor,
  type Recipe,
} from "../../methods/index.ts";
import { requireTokenizer } from "../../models/index.ts";
import { embeddedModel, openModel, saveModel } from "../../models/node.ts";
import { cacheEffect, type Report, type Subject, type Variant } from "../../report/index.ts";
import { command } from "../command.ts";
import { histogramsOf, layerErrorsOf, machineName, measureVariant, storedBytes } from "../compress/measure.ts";
import { writeReport } from "../compress/report.ts";
import { variantTable } from "../compress/table.ts";
import { readTexts } from "../compress/texts.ts";

const recipes: readonly (Recipe & { readonly name: string })[] = [
  { name: "8 bits", to: "8bit", method: "nearest" },
  { name: "4 bits, nearest", to: "4bit", method: "nearest" },
  { name: "4 bits, GPTQ", to: "4bit", method: "gptq" },
  { name: "3 bits, GPTQ", to: "3bit", method: "gptq" },
  { name: "2 bits, nearest", to: "2bit", method: "nearest" },
  { name: "2 bits, GPTQ", to: "2bit", method: "gptq" },
];

/** Whose weights' histograms the report shows beside the original's. */
const shown = "4 bits, GPTQ";
const prompt = "Once upon a time";

/** Tokens of a window to calibrate on. */
const WINDOW = 256;

/** As much text to calibrate on as to measure on, up to what makes no more difference. */
const windowsFor = (tokens: number): number => Math.min(48, Math.floor(tokens / WINDOW));

/** Compresses the model that comes with pare in several ways and shows what each cost. */
export const demo = command({
  args: {},
  options: {
    out: { type: "string", value: "folder", short: "o", default: ".", summary: "where report.html and report.json go" },
    tokens: {
      type: "integer",
      value: "n",
      min: 512,
      default: 12_288,
      summary: "tokens of held-out text to measure on",
    },
    seed: { type: "integer", value: "n", min: 0, default: 0, summary: "of the choice of calibration text" },
    threads: { type: "integer", value: "count", min: 1, max: 1024, summary: "threads; default one per physical core" },
  },
  graceful: true,
  async run({ options: { out, tokens, seed, threads }, signal }) {
    const note = (line: string): void => void process.stderr.write(`${line}\n`);
    const scratch = await mkdtemp(join(tmpdir(), "pare-demo-"));
    try {
      await using model = await openModel(embeddedModel);
      const tokenizer = requireTokenizer(model);
      const texts = await readTexts(model.source, tokenizer, { calibrate: undefined, text: undefined }, note);
      const windows = calibrationWindows(texts.calibration!, { count: windowsFor(tokens), length: WINDOW, seed });
      const text = texts.measured!;
      const measuring = { text, limit: tokens, prompt, signal, threads };
      const { config } = model;
      const original: Subject = {
        name: "original",
        config,
        weights: model.weights,
        tokenizer,
        bytes: storedBytes(model),
      };
      note("measuring the original");
      const variants: Variant[] = [await measureVariant(original, model.source, null, measuring)];
      const subjects: Subject[] = [original];
      const table = methodOf({ to: "8bit", method: "nearest" });
      for (const { name, ...recipe } of recipes) {
        note(`compressing to ${name}`);
        const layers: MatrixMethod = methodOf(recipe);
        const plan = planFor(config, { layers, embedding: table });
        const { weights, reports } = await compressDecoder(memorySource(model), plan, windows, { seed, signal });
        const place = join(scratch, `${recipe.to}-${recipe.method}`);
        await saveModel(place, { json: model.json, weights, tokenizer });
        const subject: Subject = { name, config, weights, tokenizer, layerErrors: layerErrorsOf(reports) };
        variants.push(await measureVariant(subject, place, original, measuring));
        if (name === shown) subjects.push(subject);
      }
      const report: Report = {
        title: "The embedded model, compressed in several ways",
        machine: machineName(),
        text: { name: text.name, tokens: Math.min(tokens, text.tokens.length) },
        prompt,
        variants,
        histograms: await histogramsOf(subjects, text.tokens),
        sensitivity: [],
        cache: await cacheEffect(subjects.at(-1)!, text.tokens, { signal, ...(threads !== undefined && { threads }) }),
      };
      await writeReport(resolve(out), report);
      note("decoding with a model of 100 million random weights, which tells more about speed than a small one");
      const speeds = await packedDecodeSpeeds(size100m, { signal, threads });
      const faster = `A model of 100 million weights decodes ${speeds.int4.toFixed(0)} tokens/s at 4 bits and ${speeds.f32.toFixed(0)} in f32`;
      return {
        text: `${variantTable(variants)}\n\n${faster}\n${resolve(out, "report.html")} shows more`,
        json: { ...report, decode100m: speeds },
      };
    } catch (error) {
      if (signal.aborted && error === signal.reason) return { text: "", json: { stopped: true } };
      throw error;
    } finally {
      await rm(scratch, { recursive: true, force: true });
    }
  },
});
