import { FormatError } from "../../formats/index.ts";
import { embeddedModel } from "../../models/node.ts";
import { OnnxError } from "../../onnx/index.ts";
import { sizeOf } from "../../tensor/index.ts";
import { harmless } from "../answer.ts";
import { command } from "../command.ts";
import type { Contents } from "../inspect/contents.ts";
import { type Group, grouped, type Inspected } from "../inspect/groups.ts";
import { openContents } from "../inspect/open.ts";
import { merged, type Values, valuesOf } from "../inspect/values.ts";
import { textTable } from "../table.ts";

/** Shows what a model's folder or file consists of, and whether it is sound. */
export const inspect = command({
  args: {
    path: {
      summary:
        "a model's folder, .safetensors (or its index), .gguf, .onnx, llama2.c .bin, tokenizer.json; default the model that pare brings",
    },
  },
  options: {
    tensors: { type: "flag", summary: "list every tensor instead of one line for all layers" },
    noValues: { type: "flag", summary: "do not read the numbers: no sparsity, range or search for NaN" },
  },
  graceful: true,
  async run({ args, options, signal }) {
    const path = args.path ?? embeddedModel;
    try {
      await using contents = await openContents(path);
      const report = await reportOn(path, contents, !options.noValues, signal);
      const groups = grouped(report.tensors, options.tensors);
      return { ok: report.problems.length === 0, text: harmless(textOf(report, groups)), json: report };
    } catch (error) {
      if (!(error instanceof FormatError || error instanceof OnnxError)) throw error;
      const problem = error.message.startsWith(path) ? error.message : `${path}: ${error.message}`;
      return { ok: false, text: harmless(`malformed: ${problem}`), json: { path, problems: [problem] } };
    }
  },
});

interface Report {
  readonly path: string;
  readonly format: string;
  readonly facts: Contents["facts"];
  readonly tensors: readonly Inspected[];
  readonly parameters: number;
  readonly bytes: number;
  readonly bitsPerWeight: number | null;
  /** Share of parameters that are exactly zero; null where the numbers were not read. */
  readonly sparsity: number | null;
  readonly notes: readonly string[];
  readonly problems: readonly string[];
}

async function reportOn(path: string, contents: Contents, read: boolean, signal: AbortSignal): Promise<Report> {
  const { format, facts, items, notes } = contents;
  const tensors: Inspected[] = [];
  const problems = [...contents.problems];
  for (const { name, type, shape, bytes, read: numbers } of items) {
    if (signal.aborted) break;
    const values = read && numbers ? await valuesOf(await numbers()) : null;
    tensors.push({ name, type, shape, bytes, parameters: sizeOf(shape) as number, values });
    if (values && values.nan + values.infinite > 0)
      problems.push(`"${name}" holds ${values.nan} NaN and ${values.infinite} infinities`);
  }
  const parameters = tensors.reduce((sum, tensor) => sum + tensor.parameters, 0);
  const bytes = tensors.reduce((sum, tensor) => sum + tensor.bytes, 0);
  const values = merged(tensors.flatMap((tensor) => tensor.values ?? []));
  return {
    path,
    format,
    facts,
    tensors,
    parameters,
    bytes,
    bitsPerWeight: parameters > 0 ? (8 * bytes) / parameters : null,
    sparsity: values && values.count > 0 ? values.zeros / values.count : null,
    notes,
    problems,
  };
}

function textOf(report: Report, groups: readonly Group[]): string {
  const { path, format, facts, tensors, parameters, bytes, bitsPerWeight, sparsity, notes, problems } = report;
  const totals: readonly (readonly [string, string])[] =
    tensors.length === 0
      ? []
      : [
          ["parameters", parameters.toLocaleString("en")],
          ["size", sizeText(bytes)],
          ["bits per weight", bitsPerWeight!.toFixed(2)],
          ...(sparsity === null ? [] : [["exact zeros", percent(sparsity)] as const]),
          ...[...typesOf(tensors)].map(
            ([type, found]) =>
              [
                type,
                `${found.tensors} tensors, ${percent(found.parameters / parameters)} of the parameters, ${sizeText(found.bytes)}`,
              ] as const,
          ),
        ];
  const lines = [
    ["format", format] as const,
    ...Object.entries(facts).map(([name, value]) => [name, `${value}`] as const),
    ...totals,
  ];
  const width = Math.max(...lines.map(([name]) => name.length));
  return [
    path,
    ...lines.map(([name, value]) => `${name.padEnd(width)}  ${value}`),
    ...(groups.length === 0 ? [] : ["", tableOf(groups)]),
    ...(notes.length + problems.length === 0 ? [] : [""]),
    ...notes.map((note) => `note: ${note}`),
    ...problems.map((problem) => `problem: ${problem}`),
  ].join("\n");
}

function typesOf(tensors: readonly Inspected[]): Map<string, { tensors: number; parameters: number; bytes: number }> {
  const types = new Map<string, { tensors: number; parameters: number; bytes: number }>();
  for (const { type, parameters, bytes } of tensors) {
    const before = types.get(type) ?? { tensors: 0, parameters: 0, bytes: 0 };
    types.set(type, {
      tensors: before.tensors + 1,
      parameters: before.parameters + parameters,
      bytes: before.bytes + bytes,
    });
  }
  return types;
}

function tableOf(groups: readonly Group[]): string {
  const read = groups.some(({ values }) => values);
  return textTable(
    ["tensor", "count", "type", "shape", "size", "bits", ...(read ? ["zeros", "least", "greatest"] : [])],
    groups.map(({ name, items, type, shape, bytes, parameters, values }) => [
      name,
      `${items}`,
      type,
      `[${shape.join(", ")}]`,
      sizeText(bytes),
      parameters > 0 ? ((8 * bytes) / parameters).toFixed(2) : "",
      ...(read ? valueCells(values) : []),
    ]),
    { right: [1, 4, 5, 6, 7, 8] },
  );
}

const valueCells = (values: Values | null): string[] =>
  values && values.count > 0
    ? [percent(values.zeros / values.count), numberText(values.min), numberText(values.max)]
    : ["", "", ""];

const percent = (share: number): string => `${(100 * share).toFixed(1)} %`;
const numberText = (value: number | null): string => (value === null ? "" : value.toPrecision(4));

function sizeText(bytes: number): string {
  const unit = [1e9, 1e6, 1e3].findIndex((size) => bytes >= size);
  return unit < 0 ? `${bytes} B` : `${(bytes / 10 ** (9 - 3 * unit)).toFixed(1)} ${["GB", "MB", "kB"][unit]}`;
}
