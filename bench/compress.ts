import { spawn } from "node:child_process";
import { existsSync } from "node:fs";
import { readFile, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { fileURLToPath } from "node:url";
import type { PendingTensor } from "../src/formats/index.ts";
import { saveSafetensorsFolder, writeModelFiles } from "../src/formats/node.ts";
import { decoderConfig, decoderShapes } from "../src/models/index.ts";
import { embeddedModel } from "../src/models/node.ts";
import { type HostTensor, Rng } from "../src/tensor/index.ts";
import { type Command, type Report, UsageError } from "./command.ts";

/** At a width of 1024, layers have 12.8 million weights, 51 MB in single precision; 20 of them take 1 GB. */
const shapeOf = (width: number, layers: number) => ({
  model_type: "llama",
  vocab_size: 4096,
  hidden_size: width,
  intermediate_size: 2.75 * width,
  num_hidden_layers: layers,
  num_attention_heads: width / 64,
  num_key_value_heads: width / 64,
  max_position_embeddings: 512,
  tie_word_embeddings: true,
});
type Shape = ReturnType<typeof shapeOf>;

const pare = fileURLToPath(new URL("../bin/pare.js", import.meta.url));

/** Resident memory that `pare compress` takes at most, for models of a few layers and of many. */
export const compress: Command = {
  options: {
    layers: "5,20",
    width: "1024",
    to: "4bit",
    method: "nearest",
    format: "safetensors",
    work: join(tmpdir(), "pare-bench"),
  },
  async run({ options, threads, log }): Promise<Report> {
    const { layers = "", width = "", to = "", method = "", format = "", work = "" } = options;
    const counts = layers.split(",").map(Number);
    if (!counts.every((n) => Number.isInteger(n) && n > 0))
      throw new UsageError(`--layers takes whole numbers separated by commas, not ${layers}`);
    if (!(Number(width) > 0 && Number(width) % 64 === 0))
      throw new UsageError(`--width takes a multiple of 64, not ${width}`);
    const base = await peakOf(["--version"]);
    const models = [];
    for (const count of counts) {
      const folder = join(work, `compress-${width}-${count}`);
      const modelBytes = await makeModel(folder, shapeOf(Number(width), count), log);
      log(`compressing ${count} layers, ${megabytes(modelBytes)}`);
      const out = join(work, "compressed");
      const text = join(embeddedModel, "training-sample.txt");
      const settings = ["--to", to, "--method", method, "--format", format, "--windows", "8", "--length", "128"];
      const place = ["--calibrate", text, "--out", out, "--force", "--threads", `${threads}`];
      models.push({ layers: count, modelBytes, peakBytes: await peakOf(["compress", folder, ...settings, ...place]) });
      await rm(out, { recursive: true, force: true });
    }
    const layerBytes = Array.from(decoderShapes(decoderConfig(shapeOf(Number(width), 1))))
      .filter(([name]) => name.startsWith("model.layers.0."))
      .reduce((sum, [, dims]) => sum + 4 * dims.reduce((a, b) => a * b, 1), 0);
    const result = { name: "compress", to, method, format, layerBytes, basePeakBytes: base, models };
    const lines = models.map(
      (m) =>
        `${m.layers} layers, ${megabytes(m.modelBytes)}: peak ${megabytes(m.peakBytes)}, of which ${megabytes(base)} for nothing`,
    );
    return { result, text: [`a layer takes ${megabytes(layerBytes)}`, ...lines].join("\n") };
  },
};

const megabytes = (bytes: number): string => `${(bytes / 1e6).toFixed(0)} MB`;

/** A model with random weights, the same in each layer, and the tokenizer of the one that comes with pare. */
async function makeModel(folder: string, shape: Shape, log: (line: string) => void): Promise<number> {
  const rng = new Rng(0);
  const made = new Map<string, HostTensor>();
  const tensors = Array.from(decoderShapes(decoderConfig(shape)), ([name, dims]): PendingTensor => {
    const kind = name.replace(/layers\.\d+/, "layers");
    const load = (): HostTensor => {
      const tensor = made.get(kind) ?? rng.fork(kind).normalTensor(dims as number[], { std: 0.02 });
      made.set(kind, tensor);
      return tensor;
    };
    return { name, dtype: "f32", shape: dims, load };
  });
  if (!existsSync(join(folder, "config.json"))) {
    log(`making a model of ${shape.num_hidden_layers} layers`);
    const tokenizer: Record<string, Uint8Array> = {};
    for (const file of ["tokenizer.json", "tokenizer_config.json"])
      if (existsSync(join(embeddedModel, file))) tokenizer[file] = await readFile(join(embeddedModel, file));
    await writeModelFiles(folder, tokenizer);
    await saveSafetensorsFolder(folder, tensors, { maxShardBytes: 3e8 });
    await writeModelFiles(folder, { "config.json": shape });
  }
  return tensors.reduce((sum, { shape: dims }) => sum + 4 * dims.reduce((a, b) => a * b, 1), 0);
}

/** Most resident memory of a `pare` of its own, as Linux tells it. @throws Error where it fails */
async function peakOf(words: readonly string[]): Promise<number> {
  const child = spawn(process.execPath, [pare, ...words], { stdio: ["ignore", "ignore", "pipe"] });
  let said = "";
  child.stderr.on("data", (data) => (said = `${said}${data}`.slice(-2000)));
  let peak = 0;
  const look = async (): Promise<void> => {
    const status = await readFile(`/proc/${child.pid}/status`, "utf8").catch(() => "");
    peak = Math.max(peak, 1024 * Number(/VmHWM:\s+(\d+)/.exec(status)?.[1] ?? 0));
  };
  const timer = setInterval(() => void look(), 50);
  const code = await new Promise<number | null>((resolve) => child.on("close", resolve));
  clearInterval(timer);
  if (code !== 0) throw new Error(`pare ${words.join(" ")} ended with ${code}: ${said}`);
  return peak;
}
