import { createHash } from "node:crypto";
import { mkdir, readFile } from "node:fs/promises";
import { homedir } from "node:os";
import { join } from "node:path";
import { FileError, FormatError, pendingTensors, type Tokenizer } from "../formats/index.ts";
import { openSafetensors, saveSafetensors } from "../formats/node.ts";
import { requireTokenizer } from "../models/index.ts";
import { embeddedModel, openModel } from "../models/node.ts";
import type { HostTensor } from "../tensor/index.ts";
import type { LanguageModel, Workbench } from "./workbench.ts";

/** Counted up when what experiments train comes out differently for the same key. */
const CACHE_VERSION = 1;
/** Metadata of a cached file that says what it is of. */
const KEY = "pare.experiment";

/** Works on what comes with the package, and keeps what experiments train in the user's cache folder. */
export function localWorkbench({ cacheFolder = experimentCache() }: { cacheFolder?: string } = {}): Workbench {
  let model: Promise<LanguageModel> | undefined;
  return {
    languageModel: () => (model ??= openEmbedded()),
    cached: (key, make) => cachedIn(cacheFolder, key, make),
  };
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

async function openEmbedded(): Promise<LanguageModel> {
  await using model = await openModel(embeddedModel);
  const tokenizer = requireTokenizer(model);
  const tokens = async (file: string): Promise<number[]> =>
    tokensOf(tokenizer, await readFile(join(embeddedModel, file), "utf8"));
  return {
    name: "storybook",
    config: model.config,
    weights: model.weights,
    tokenizer,
    training: await tokens("training-sample.txt"),
    heldOut: await tokens("held-out.txt"),
  };
}

/** Texts in a row, each behind the token that ends texts, as the model was trained on them. */
function tokensOf(tokenizer: Tokenizer, text: string): number[] {
  return [tokenizer.bosId!, ...tokenizer.encode(text, { allowSpecial: true })];
}
