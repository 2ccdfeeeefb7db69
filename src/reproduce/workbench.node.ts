import { createHash } from "node:crypto";
import { mkdir, readFile } from "node:fs/promises";
import { homedir } from "node:os";
import { basename, join } from "node:path";
import { FileError, FormatError, pendingTensors } from "../formats/index.ts";
import { decodeUtf8 } from "../formats/json.ts";
import { openSafetensors, saveSafetensors } from "../formats/node.ts";
import { requireTokenizer } from "../models/index.ts";
import { embeddedModel, openModel } from "../models/node.ts";
import type { HostTensor } from "../tensor/index.ts";
import { type LanguageModel, onText, tokensOf, type Workbench } from "./workbench.ts";

/** Counted up when what experiments train comes out differently for the same key. */
const CACHE_VERSION = 1;
/** Metadata of a cached file that says what it is of. */
const KEY = "pare.experiment";

export interface LocalWorkbenchOptions {
  /** Where what experiments train is kept. Default: the user's cache folder. */
  readonly cacheFolder?: string;
  /** The language model of the experiments, as `openModel` takes it. Default: the one that comes with pare. */
  readonly model?: string | undefined;
  /** A file with text for that model, of which the last tenth is held out. Default: the texts that come with pare. */
  readonly text?: string | undefined;
  /** Where data sets lie that do not come with the package. Default: the folder that `PARE_DATA` names. */
  readonly dataFolder?: string | undefined;
}

/** Works on what comes with the package or is named, and keeps what experiments train in the user's cache folder. */
export function localWorkbench({
  cacheFolder = experimentCache(),
  dataFolder = process.env["PARE_DATA"],
  ...named
}: LocalWorkbenchOptions = {}): Workbench {
  let model: Promise<LanguageModel> | undefined;
  return {
    languageModel: () => (model ??= openLanguageModel(named)),
    cached: (key, make) => cachedIn(cacheFolder, key, make),
    ...(dataFolder && { dataFile: (path) => fileIn(dataFolder, path) }),
  };
}

async function fileIn(folder: string, path: string): Promise<Uint8Array<ArrayBuffer> | null> {
  try {
    return new Uint8Array(await readFile(join(folder, path)));
  } catch (error) {
    if ((error as { code?: string }).code === "ENOENT") return null;
    throw error;
  }
}

/** Where experiments keep models that they trained: `PARE_CACHE`, or `pare/experiments` in the user's cache folder. */
export function experimentCache(env = process.env, home = homedir()): string {
  return env["PARE_CACHE"] || join(env["XDG_CACHE_HOME"] || join(home, ".cache"), "pare", "experiments");
}

async function cachedIn(
  folder: string,
  key: unknown,
  make: () => Promise<Record<string, HostTensor>>,
): Promise<Record<string, HostTensor>> {
  const text = JSON.stringify([CACHE_VERSION, key]);
  const path = join(folder, `${createHash("sha256").update(text).digest("hex").slice(0, 32)}.safetensors`);
  const found = await readCached(path, text);
  if (found) return found;
  const tensors = await make();
  await mkdir(folder, { recursive: true });
  await saveSafetensors(path, pendingTensors(Object.entries(tensors)), new Map([[KEY, text]]));
  return tensors;
}

/** The tensors of a cached file; null where there is none, or it is damaged and has to be made again. */
async function readCached(path: string, key: string): Promise<Record<string, HostTensor> | null> {
  try {
    const file = await openSafetensors(path);
    try {
      if (file.metadata.get(KEY) !== key) return null;
      const tensors: Record<string, HostTensor> = {};
      for (const name of file.tensors.keys()) tensors[name] = await file.read(name);
      return tensors;
    } finally {
      await file.close();
    }
  } catch (error) {
    if (error instanceof FileError || error instanceof FormatError) return null;
    throw error;
  }
}

async function openLanguageModel({ model: place, text }: Pick<LocalWorkbenchOptions, "model" | "text">) {
  await using model = await openModel(place ?? embeddedModel);
  const tokenizer = requireTokenizer(model);
  const described = { name: basename(model.source), config: model.config, weights: model.weights, tokenizer };
  if (text !== undefined) return onText(described, await textOf(text));
  const own = async (file: string): Promise<number[]> => tokensOf(tokenizer, await textOf(join(embeddedModel, file)));
  return { ...described, training: await own("training-sample.txt"), heldOut: await own("held-out.txt") };
}

async function textOf(path: string): Promise<string> {
  const bytes = await readFile(path).catch((error: NodeJS.ErrnoException) => {
    throw new FileError(`${path} cannot be read (${error.code ?? error.message})`);
  });
  return decodeUtf8(bytes, path);
}
