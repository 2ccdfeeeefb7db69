import { readFile } from "node:fs/promises";
import { basename, dirname, resolve } from "node:path";
import { explained } from "../../formats/files.node.ts";
import { isJsonObject, type JsonObject, parseJson } from "../../formats/json.ts";
import { compressGuard, GuardCodec, type GuardRecipe, type StageReport } from "../../methods/index.ts";
import { conversationOf, loadGuard, readGuardExamples, readPolicy, saveGuard } from "../../methods/node.ts";
import { ModelError, requireTokenizer } from "../../models/index.ts";
import { openModel } from "../../models/node.ts";
import { command, type Outcome } from "../command.ts";
import { stage } from "../compress/staging.ts";
import { UsageError } from "../errors.ts";
import { guardSite } from "../server/guard-site.ts";
import { serverOptions, serveUntilTold } from "../server/serve.ts";
import { textTable } from "../table.ts";

/** Makes a guard small, judges a conversation with one, or lets others do so over HTTP. */
export const guard = command({
  args: {
    action: { required: true, summary: "compress, moderate or serve" },
    model: { summary: "moderate, serve: the folder of a guard that was compressed" },
  },
  options: {
    recipe: { type: "string", value: "file", summary: "compress: what to make of which models, as JSON" },
    text: { type: "string", value: "words", summary: "moderate: what a user says" },
    conversation: { type: "string", value: "file", summary: 'moderate: JSON, { "turns": [{ "role", "text" }] }' },
    force: { type: "flag", summary: "compress: replace the folder if it exists" },
    ...serverOptions,
  },
  example: "pare guard serve small-guard --port 8080",
  graceful: true,
  async run({ args: { action, model }, options, json, signal }) {
    if (action === "compress") {
      if (options.recipe === undefined) throw new UsageError("compress needs --recipe <file>");
      return await compressed(options.recipe, options.force, signal);
    }
    if (action !== "moderate" && action !== "serve")
      throw new UsageError(`a guard can compress, moderate or serve, not "${action}"`);
    if (model === undefined)
      throw new UsageError(`${action} needs the folder of a guard: pare guard ${action} <model>`);
    if (action === "serve") {
      await using loaded = await loadGuard(model);
      const name = basename(resolve(model));
      return await serveUntilTold(guardSite(loaded), { name, path: "/moderate" }, { ...options, json, signal });
    }
    if ((options.text === undefined) === (options.conversation === undefined))
      throw new UsageError("give --text or --conversation");
    return await moderated(model, options.text, options.conversation);
  },
});

async function moderated(folder: string, text: string | undefined, file: string | undefined): Promise<Outcome> {
  const { turns, judge } =
    file === undefined
      ? ({ turns: [{ role: "user", text: text! }], judge: "user" } as const)
      : conversationOf(parseJson(await explained("read", file, readFile(file, "utf8")), file), file);
  await using loaded = await loadGuard(folder);
  const result = await loaded.moderate(turns, judge);
  const names = new Map(loaded.policy.categories.map(({ code, name }) => [code, name]));
  const found = result.categories.map((code) => `${code} (${names.get(code)})`).join(", ");
  const verdict = result.safe ? "safe" : `unsafe: ${found}`;
  return { text: `${verdict}, score ${result.score.toFixed(3)}, after ${result.ttftMs.toFixed(0)} ms`, json: result };
}

/** What a recipe's file says besides the sizes: models, policy and conversations, relative to the file. */
const places = ["student", "teacher", "policy", "training", "test", "out"] as const;
const numbers = [
  "layers",
  "ffn",
  "group",
  "steps",
  "rate",
  "batch",
  "quantizedShare",
  "quantizedRate",
  "lambda",
  "tau",
  "calibration",
  "seed",
] as const;
const needed: readonly string[] = ["layers", "ffn", "steps", "rate"];

async function readRecipe(path: string) {
  const json = parseJson(await explained("read", path, readFile(path, "utf8")), path);
  if (!isJsonObject(json)) throw new UsageError(`${path}: a recipe is a JSON object`);
  const unknown = Object.keys(json).find((key) => ![...places, ...numbers].includes(key as never));
  if (unknown !== undefined)
    throw new UsageError(`${path}: a recipe has no "${unknown}"; it has ${[...places, ...numbers].join(", ")}`);
  for (const key of numbers)
    if (!(typeof json[key] === "number" || (json[key] === undefined && !needed.includes(key))))
      throw new UsageError(`${path}: "${key}" is a number, not ${JSON.stringify(json[key])}`);
  const at = (key: (typeof places)[number]): string => {
    const place = json[key];
    if (typeof place !== "string") throw new UsageError(`${path}: "${key}" names a place`);
    return place;
  };
  const file = (key: (typeof places)[number]): string => resolve(dirname(path), at(key));
  return {
    student: modelPlace(path, at("student")),
    teacher: modelPlace(path, at("teacher")),
    policy: file("policy"),
    training: file("training"),
    test: file("test"),
    out: file("out"),
    recipe: json as JsonObject & GuardRecipe,
  };
}

/** A path relative to the recipe, or a name on the hub as it is. */
function modelPlace(recipe: string, place: string): string {
  return /^\w[\w.-]*\/[\w.-]+(@\S+)?$/.test(place) ? place : resolve(dirname(recipe), place);
}

async function compressed(path: string, force: boolean, signal: AbortSignal): Promise<Outcome> {
  const { recipe, out, ...from } = await readRecipe(path);
  const policy = await readPolicy(from.policy);
  const training = await readGuardExamples(from.training, policy);
  const test = await readGuardExamples(from.test, policy);
  const staging = await stage(out, { force });
  await using student = await openModel(from.student);
  await using teacher = await openModel(from.teacher);
  const tokenizer = requireTokenizer(student);
  const other = requireTokenizer(teacher);
  const sample = training
    .flatMap(({ turns }) => turns.map(({ text }) => text))
    .slice(0, 100)
    .join("\n");
  if (tokenizer.encode(sample).join() !== other.encode(sample).join())
    throw new ModelError(
      `${from.student} and ${from.teacher} cut texts into different tokens; a teacher needs the student's tokenizer`,
    );
  const data = { codec: new GuardCodec(policy, tokenizer), training, test };
  const onStage = ({ stage: name, f1 }: StageReport): void => {
    if (process.stderr.isTTY) console.error(`${name}: F1 ${f1.toFixed(3)}`);
  };
  const result = await compressGuard(student, teacher, data, recipe, { onStage, signal });
  const json = { ...student.json, num_hidden_layers: result.config.layers, intermediate_size: result.config.ffn };
  await saveGuard(staging.folder, { json, weights: result.weights, tokenizer, policy });
  await staging.finish();
  return { text: `${tableOf(result.stages)}\n\nthe guard is in ${out}`, json: { out, stages: result.stages } };
}

function tableOf(stages: readonly StageReport[]): string {
  const heads = ["", "parameters", "bytes", "F1", "false positives", "AUPRC", "ms"];
  const rows = stages.map((row) => [
    row.stage,
    `${(row.parameters / 1e6).toFixed(1)} M`,
    `${(row.bytes / 1e6).toFixed(1)} MB`,
    row.f1.toFixed(3),
    row.falsePositives.toFixed(3),
    row.auprc.toFixed(3),
    row.milliseconds.toFixed(1),
  ]);
  return textTable(heads, rows, { right: [1, 2, 3, 4, 5, 6] });
}
