import { mkdir, readdir, rm } from "node:fs/promises";
import { join } from "node:path";
import { FormatError, pendingTensors } from "../../formats/index.ts";
import { isJsonObject, type JsonObject, parseJson } from "../../formats/json.ts";
import { openSafetensors, openSafetensorsIndex, saveSafetensors, writeModelFiles } from "../../formats/node.ts";
import { describedWeights, type StoredWeights } from "../../models/index.ts";
import { storeWeights } from "../../nn/index.ts";
import type { HostTensor } from "../../tensor/index.ts";
import { type CompressedPart, type CompressOptions, compressParts } from "./compress.ts";
import { StateError } from "./errors.ts";
import type { Plan } from "./plan.ts";
import type { MatrixReport } from "./report.ts";
import { compressionFolder } from "./resume.node.ts";
import type { DecoderSource } from "./source.ts";

/** Key of a part's metadata; the number of the part follows, so that those of all parts go together. */
const KEY = "pare.part.";
const INDEX = "parts.safetensors.index.json";

/** A compressed model whose weights lie in the files of its parts. */
export interface CompressedParts extends AsyncDisposable {
  readonly stored: StoredWeights;
  readonly reports: readonly MatrixReport[];
}

/**
 * Compresses a decoder and keeps each finished part in `folder`, so that a run that was stopped, at whatever moment, goes
 * on with the part that it was in. No more than a part is ever in memory, and nothing of the result.
 * @throws StateError where another run left the folder; FormatError where a part's file is damaged; FileError
 */
export async function compressInFolder(
  folder: string,
  source: DecoderSource,
  plan: Plan,
  windows: HostTensor,
  options: Omit<CompressOptions, "state"> = {},
): Promise<CompressedParts> {
  const state = compressionFolder(folder);
  // Without a state, what lies there belongs to no run that can go on.
  if (!(await state.load())) await rm(folder, { recursive: true, force: true });
  await mkdir(folder, { recursive: true });
  try {
    for await (const part of compressParts(source, plan, windows, { ...options, state })) await savePart(folder, part);
  } catch (error) {
    throw error instanceof StateError ? new StateError(`${folder}: ${error.message}`) : error;
  }
  return await openParts(folder);
}

async function savePart(folder: string, { index, weights, reports }: CompressedPart): Promise<void> {
  const { tensors, description } = storeWeights(weights);
  const metadata = new Map([[`${KEY}${index}`, JSON.stringify({ description, reports })]]);
  const path = join(folder, `part-${String(index).padStart(5, "0")}.safetensors`);
  await saveSafetensors(path, pendingTensors(Object.entries(tensors)), metadata);
}

/** All parts as one model, by an index like that of a model in shards. */
async function openParts(folder: string): Promise<CompressedParts> {
  const names = (await readdir(folder)).filter((name) => /^part-\d+\.safetensors$/.test(name)).sort();
  const places: Record<string, string> = {};
  for (const name of names) {
    await using part = await openSafetensors(join(folder, name));
    for (const tensor of part.tensors.keys()) places[tensor] = name;
  }
  await writeModelFiles(folder, { [INDEX]: { weight_map: places } });
  const file = await openSafetensorsIndex(join(folder, INDEX));
  const description: Record<string, unknown> = {};
  const reports: MatrixReport[] = [];
  for (const [i, name] of names.entries()) {
    const part = partMetadata(file.metadata.get(`${KEY}${i}`), join(folder, name));
    Object.assign(description, part["description"]);
    reports.push(...(part["reports"] as unknown as MatrixReport[]));
  }
  const stored = describedWeights(file, file.tensors, description as JsonObject);
  return { stored, reports, [Symbol.asyncDispose]: () => file.close() };
}

function partMetadata(text: string | undefined, path: string): JsonObject {
  const found = text === undefined ? null : parseJson(text, path);
  if (!isJsonObject(found)) throw new FormatError(`${path}: it is no part of a compression; remove it`);
  return found;
}
