import { mkdir, readdir, rm } from "node:fs/promises";
import { join } from "node:path";
import { FormatError, pendingTensors, readTensors } from "../../formats/index.ts";
import { openSafetensors, saveSafetensors } from "../../formats/node.ts";
import { restoreWeights, storeWeights, type Weight } from "../../nn/index.ts";
import type { HostTensor } from "../../tensor/index.ts";
import { type CompressedPart, type CompressOptions, compressParts } from "./compress.ts";
import { StateError } from "./errors.ts";
import type { Plan } from "./plan.ts";
import type { MatrixReport } from "./report.ts";
import { compressionFolder } from "./resume.node.ts";
import type { DecoderSource } from "./source.ts";

const KEY = "pare.part";

/**
 * Compresses a decoder and keeps each finished part in `folder`, so that a run that was stopped, at whatever moment, goes
 * on with the part that it was in.
 * @throws StateError where another run left the folder; FormatError where a part's file is damaged
 */
export async function compressInFolder(
  folder: string,
  source: DecoderSource,
  plan: Plan,
  windows: HostTensor,
  options: Omit<CompressOptions, "state"> = {},
): Promise<{ weights: Record<string, Weight | HostTensor>; reports: MatrixReport[] }> {
  const state = compressionFolder(folder);
  // Without a state, what lies there belongs to no run that can go on.
  if (!(await state.load())) await rm(folder, { recursive: true, force: true });
  await mkdir(folder, { recursive: true });
  try {
    for await (const part of compressParts(source, plan, windows, { ...options, state })) await savePart(folder, part);
  } catch (error) {
    throw error instanceof StateError ? new StateError(`${folder}: ${error.message}`) : error;
  }
  const weights: Record<string, Weight | HostTensor> = {};
  const reports: MatrixReport[] = [];
  const files = (await readdir(folder)).filter((name) => /^part-\d+\.safetensors$/.test(name)).sort();
  for (const file of files) {
    const part = await readPart(join(folder, file));
    Object.assign(weights, part.weights);
    reports.push(...part.reports);
  }
  return { weights, reports };
}

async function savePart(folder: string, { index, weights, reports }: CompressedPart): Promise<void> {
  const { tensors, description } = storeWeights(weights);
  const metadata = new Map([[KEY, JSON.stringify({ description, reports })]]);
  const path = join(folder, `part-${String(index).padStart(5, "0")}.safetensors`);
  await saveSafetensors(path, pendingTensors(Object.entries(tensors)), metadata);
}

async function readPart(path: string): Promise<Pick<CompressedPart, "weights" | "reports">> {
  const file = await openSafetensors(path);
  try {
    const header = file.metadata.get(KEY);
    if (header === undefined) throw new FormatError(`${path}: it is no part of a compression; remove it`);
    const { description, reports } = JSON.parse(header) as { description: unknown; reports: MatrixReport[] };
    return { weights: restoreWeights(description, Object.fromEntries(await readTensors(file))), reports };
  } finally {
    await file.close();
  }
}
