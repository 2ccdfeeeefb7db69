import { readdir, readFile } from "node:fs/promises";
import { basename, dirname } from "node:path";
import { fileURLToPath } from "node:url";
import { explained } from "../../formats/files.node.ts";
import { decodeUtf8, parseJson } from "../../formats/json.ts";
import { embeddedModel } from "../../models/node.ts";
import { didYouMean } from "../../tensor/suggest.ts";
import { TaskError } from "../errors.ts";
import { type Dataset, readDataset } from "./data.node.ts";
import { readTask, type Task } from "./task.ts";

const builtin = new URL("./builtin/", import.meta.url);

export interface LoadedTask extends Dataset {
  readonly task: Task;
  /** The definition as it lies in the file. */
  readonly json: unknown;
}

/** Names of the tasks that come with pare. */
export async function builtinTasks(): Promise<string[]> {
  return (await readdir(builtin)).map((file) => basename(file, ".json")).sort();
}

/**
 * A task with its data: one that comes with pare, by its name, or the definition in a `.json` file.
 * @param data folder with data that pare does not come with
 * @throws TaskError for an unknown name, a malformed definition, or data that is missing or malformed; FileError
 */
export async function loadTask(
  name: string,
  { data }: { readonly data?: string | undefined } = {},
): Promise<LoadedTask> {
  const own = name.endsWith(".json");
  if (!own) {
    const names = await builtinTasks();
    if (!names.includes(name))
      throw new TaskError(
        `there is no task "${name}"${didYouMean(name, names)}; there are ${names.join(", ")}, and any .json file that defines one`,
      );
  }
  const path = own ? name : fileURLToPath(new URL(`${name}.json`, builtin));
  const json = parseJson(decodeUtf8(await explained("read", path, readFile(path)), path), path);
  const task = readTask(json, path);
  const folders = [...(data === undefined ? [] : [data]), own ? dirname(path) : embeddedModel];
  return { task, json, ...(await readDataset(task, folders)) };
}
