import { basename } from "node:path";
import { statOf } from "../../formats/hub-cache.node.ts";
import { type TensorFile, Tokenizer, tokenizerOf } from "../../formats/index.ts";
import { filesIdentity } from "../../formats/node.ts";
import {
  addition,
  alignVocabulary,
  averaged,
  type Conflicts,
  dare,
  Merge,
  type MergeInputs,
  type MergeProgress,
  type MergeReport,
  type MergeRule,
  matchTokens,
  slerp,
  ties,
  vocabularyTables,
} from "../../methods/index.ts";
import {
  type Checkpoint,
  configDifferences,
  mergeInProgress,
  openCheckpoint,
  reachDifferences,
  saveMerge,
} from "../../methods/node.ts";
import { ModelError } from "../../models/index.ts";
import { duration } from "../../train/index.ts";
import { command, type Input, type OptionSpec } from "../command.ts";
import { UsageError } from "../errors.ts";
import { flagName } from "../parse.ts";
import { textTable } from "../table.ts";

/** Options of each method that others have no use for. */
const methods = {
  paramdelta: ["base", "post", "newBase", "vocab"],
  task: ["base"],
  ties: ["base", "density", "scale"],
  dare: ["base", "density", "seed"],
  slerp: [],
  linear: [],
} as const;

const options = {
  method: {
    type: "string",
    value: "name",
    choices: ["paramdelta", "task", "ties", "dare", "slerp", "linear"],
    default: "paramdelta",
    summary: "how",
  },
  base: { type: "string", value: "model", summary: "what the models were trained from; all but slerp and linear" },
  post: { type: "string", value: "model", summary: "paramdelta: what post-training made of the base" },
  newBase: { type: "string", value: "model", summary: "paramdelta: the base that is to get its skills" },
  weights: {
    type: "string",
    value: "w,w,...",
    summary: "one for each model, default 1; for slerp the share of the way to the second, default 0.5",
  },
  density: {
    type: "number",
    value: "share",
    summary: "of the entries of each change that is kept: ties, default 0.2, dare, default 0.5",
  },
  scale: { type: "number", value: "factor", summary: "ties: of the merged change, default 1" },
  seed: { type: "integer", value: "n", min: 0, summary: "dare: of what is dropped, default 0" },
  vocab: {
    type: "string",
    value: "how",
    choices: ["strict", "map"],
    summary: "paramdelta: map matches vocabularies by token, strict refuses those that differ; default strict",
  },
  out: { type: "string", short: "o", value: "folder", summary: "where the merged model goes" },
  ignoreConfig: { type: "flag", summary: "merge although configurations give the weights different meanings" },
  force: { type: "flag", summary: "replace the folder if it exists" },
} as const satisfies Record<string, OptionSpec>;

type Given = Input<Record<never, never>, typeof options>["options"];

/** Makes one model of several by adding up their weights. */
export const merge = command({
  args: { models: { many: true, summary: "the models to merge; for paramdelta further post-trained ones" } },
  options,
  example: "pare merge --base Llama-3-8B --post Llama-3-8B-Instruct --new-base Llama-3-8B-news --out my-instruct",
  graceful: true,
  async run({ args, options: given, signal }) {
    const { start, base, models, rule } = planOf(args.models, given);
    const { out, vocab, ignoreConfig, force } = given;
    if (out === undefined) throw new UsageError("where is the merged model to go? --out <folder>");
    const opened = new Map<string, Checkpoint>();
    try {
      for (const place of [start, base, ...models.map((model) => model.place)])
        if (!opened.has(place)) opened.set(place, await openCheckpoint(place));
      const of = (place: string): Checkpoint => opened.get(place)!;
      const mapped = vocab === "map" ? matched(of(start), [base, ...models.map(({ place }) => place)].map(of)) : null;
      const tensorsOf = (place: string): TensorFile => mapped?.get(of(place)) ?? of(place).tensors;
      const named = models.map(({ place, weight }) => ({
        name: basename(of(place).path),
        file: tensorsOf(place),
        weight,
      }));
      const inputs: MergeInputs =
        given.method === "linear"
          ? averaged(named)
          : { start: of(start).tensors, base: tensorsOf(base), models: named };
      const onProgress = process.stderr.isTTY ? { onProgress: showProgress } : {};
      const merging = new Merge(inputs, rule, { signal, ...onProgress });
      const others = [...opened.values()];
      const stretched = others.flatMap((other) => reachDifferences(of(start), other));
      // A newer base may reach further than that of the changes; models of one base may not differ so.
      const newer = given.method === "paramdelta";
      const differences = others.flatMap((other) => configDifferences(of(start), other));
      if (!newer) differences.push(...stretched);
      if (differences.length > 0 && !ignoreConfig)
        throw new ModelError(
          `the configurations differ: ${differences.join("; ")}. If the weights mean the same all the same, add --ignore-config`,
        );
      const identities = await Promise.all(
        [start, base, ...models.map(({ place }) => place)].map((place) => filesIdentity(of(place).path)),
      );
      const key = [
        identities,
        models.map(({ weight }) => weight),
        given.method,
        rule.name,
        rule.settings,
        vocab ?? null,
      ];
      await saveMerge(out, merging, of(start), { speaker: of(models[0]!.place), force, key });
      const { warnings, ...report } = merging.report();
      const kept = newer ? stretched.map((difference) => `${difference}; the result keeps that of the new base`) : [];
      const told = { ...report, warnings: [...differences, ...kept, ...warnings] };
      return { text: shown(out, told), json: { out, ...told } };
    } catch (error) {
      if (error !== signal.reason) throw error;
      const kept = mergeInProgress(out);
      const left = (await statOf(kept)) ? `the same command goes on from ${kept}` : "nothing was written";
      return { text: `stopped; ${left}`, json: { out: null } };
    } finally {
      for (const { tensors } of opened.values()) await tensors.close();
    }
  },
});

/** Which model plays which part. */
interface Plan {
  readonly start: string;
  readonly base: string;
  readonly models: readonly { readonly place: string; readonly weight: number }[];
  readonly rule: MergeRule;
}

/** @throws UsageError for models and options that do not make up a merge */
function planOf(args: readonly string[], given: Given): Plan {
  const { method, base, post, newBase } = given;
  refuseIdle(given);
  if (method === "slerp") {
    const [first, second, ...more] = args;
    if (first === undefined || second === undefined || more.length > 0)
      throw new UsageError(`slerp goes from one model to another; it was given ${args.length}`);
    const [weight = 0.5] = weightsOf(given.weights, 1) ?? [];
    return { start: first, base: first, models: [{ place: second, weight }], rule: slerp };
  }
  const places = post === undefined ? args : [post, ...args];
  const weights = weightsOf(given.weights, places.length);
  const models = places.map((place, i) => ({ place, weight: weights?.[i] ?? 1 }));
  if (method === "linear") {
    if (models.length < 2) throw new UsageError("linear averages two models or more: pare merge --method linear A B");
    return { start: places[0]!, base: places[0]!, models, rule: addition };
  }
  if (base === undefined) throw new UsageError(`${method} needs --base <model>, which the models were trained from`);
  if (method === "paramdelta") {
    if (post === undefined) throw new UsageError("paramdelta needs --post <model>, the post-trained base");
    if (newBase === undefined) throw new UsageError("paramdelta needs --new-base <model>, which gets the skills");
    return { start: newBase, base, models, rule: addition };
  }
  if (models.length === 0) throw new UsageError(`${method} needs models to merge: pare merge --method ${method} A B`);
  return { start: base, base, models, rule: ruleOf(method, given) };
}

function ruleOf(method: "task" | "ties" | "dare", { density, scale, seed }: Given): MergeRule {
  const kept = density === undefined ? {} : { density };
  if (method === "ties") return ties({ ...kept, ...(scale !== undefined && { scale }) });
  return method === "dare" ? dare({ ...kept, ...(seed !== undefined && { seed }) }) : addition;
}

/** @throws UsageError for an option that the method would not heed */
function refuseIdle(given: Given): void {
  const own = Object.entries(methods) as [string, readonly (keyof Given)[]][];
  for (const name of new Set(own.flatMap(([, names]) => names))) {
    const users = own.filter(([, names]) => names.includes(name)).map(([method]) => method);
    if (given[name] !== undefined && !users.includes(given.method))
      throw new UsageError(`--${flagName(name)} is for ${users.join(", ")}; ${given.method} does not heed it`);
  }
}

function weightsOf(text: string | undefined, count: number): number[] | undefined {
  if (text === undefined) return undefined;
  const parts = text.split(",").map((part) => part.trim());
  const weights = parts.map(Number);
  if (parts.includes("") || !weights.every(Number.isFinite))
    throw new UsageError(`--weights takes numbers with commas between them, not "${text}"`);
  if (weights.length !== count)
    throw new UsageError(`--weights gives ${weights.length} for ${count} model${count === 1 ? "" : "s"}`);
  return weights;
}

/** The checkpoints with their vocabularies in the order of the start's. The base comes first. */
function matched(start: Checkpoint, others: readonly Checkpoint[]): Map<Checkpoint, TensorFile> {
  const tokens = ({ folder }: Checkpoint): Tokenizer => Tokenizer.fromFiles(tokenizerOf(folder));
  const rows = matchTokens(
    { rows: rowsOf(start), tokens: tokens(start) },
    { rows: Math.min(...others.map(rowsOf)), tokens: others.map(tokens) },
  );
  return new Map(others.map((checkpoint) => [checkpoint, alignVocabulary(checkpoint.tensors, rows)]));
}

/** Rows of a checkpoint's vocabulary. @throws ModelError */
function rowsOf({ path, tensors }: Checkpoint): number {
  for (const name of vocabularyTables) {
    const table = tensors.tensors.get(name);
    if (table) return table.shape[0]!;
  }
  throw new ModelError(`${path} has no table of embeddings under a name that is known, so --vocab map cannot match it`);
}

function showProgress({ tensor, doneBytes, totalBytes, remaining }: MergeProgress): void {
  const share = Math.floor((100 * doneBytes) / totalBytes);
  const end = doneBytes === totalBytes ? "\n" : "";
  process.stderr.write(`\r\x1b[K${share} % merged, ${duration(remaining)} left (${tensor})${end}`);
}

/** The figures of each layer, of what is in none, and of all together. */
function shown(out: string, { layers, overall, warnings }: MergeReport): string {
  const heads = [
    "",
    ...overall.updates.map(({ name }) => `|${name}|`),
    ...overall.pairs.flatMap(({ names }) => [`cos(${names.join(", ")})`, "opposite signs"]),
    "change",
  ];
  const row = (name: string, { updates, pairs, change }: Conflicts): string[] => [
    name,
    ...updates.map(({ relative }) => percent(relative)),
    ...pairs.flatMap(({ cosine, signConflicts }) => [cosine.toFixed(3), percent(signConflicts)]),
    percent(change),
  ];
  const rows = [...layers.map((layer) => row(layer.name, layer)), row("all", overall)];
  return [
    textTable(heads, rows, { right: heads.slice(1).map((_, i) => i + 1) }),
    "",
    "|...| and change are relative to the weights that they change.",
    ...warnings.map((warning) => `warning: ${warning}`),
    `the merged model is in ${out}`,
  ].join("\n");
}

const percent = (share: number | null): string => (share === null ? "-" : `${(100 * share).toFixed(2)} %`);
