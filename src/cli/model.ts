import { basename, resolve } from "node:path";
import type { Tokenizer } from "../formats/index.ts";
import { DecoderSession } from "../generate/index.ts";
import { requireTokenizer } from "../models/index.ts";
import { embeddedModel, openModel } from "../models/node.ts";
import type { Device } from "../runtime/index.ts";
import type { ArgSpec, OptionSpec } from "./command.ts";
import { endTokens, readGenerationConfig, type SamplingAdvice, samplingAdvice } from "./generation-config.ts";

/** The argument of commands that generate text. */
export const modelArgument = {
  model: { summary: "a folder, .gguf or llama2.c file, or owner/name on the hub; default the model that pare brings" },
} as const satisfies Record<string, ArgSpec>;

/** The options of commands that generate text. */
export const modelOptions = {
  device: {
    type: "string",
    value: "name",
    choices: ["cpu", "webgpu", "wasm"],
    default: "cpu",
    summary: "what runs it",
  },
  threads: { type: "integer", value: "count", min: 1, max: 1024, summary: "threads; default one per physical core" },
} as const satisfies Record<string, OptionSpec>;

/** What folders made of a model are named by: its last part, without an ending. @param model as users give it, or none */
export const stemOf = (model: string | undefined): string =>
  basename(resolve(model ?? "storybook")).replace(/\.(gguf|bin)$/i, "");

/** A model that is ready to generate text. */
export interface TextModel extends AsyncDisposable {
  /** The name that it was asked for by: of a folder or file its own, of a model on the hub `owner/name`. */
  readonly name: string;
  /** Whether it is the one that pare brings. */
  readonly embedded: boolean;
  readonly tokenizer: Tokenizer;
  readonly session: DecoderSession;
  /** Tokens that end a text. */
  readonly eosIds: readonly number[];
  /** How its authors say that tokens should be drawn. */
  readonly advice: SamplingAdvice;
}

/**
 * Opens a model and compiles it.
 * @param model as `openModel` takes it; without one, the model that pare brings
 * @throws as `openModel`; ModelError also where it has no tokenizer; DeviceError
 */
export async function openTextModel(
  model: string | undefined,
  { device, threads }: { readonly device: Device; readonly threads: number | undefined },
): Promise<TextModel> {
  const place = model ?? embeddedModel;
  await using opened = await openModel(place, { hub: { onProgress: downloadProgress() } });
  const tokenizer = requireTokenizer(opened);
  const generationConfig = await readGenerationConfig(opened.source);
  const options = { device, ...(threads !== undefined && { threads }) };
  const session = await DecoderSession.open(opened.config, opened.weights, options);
  const onHub = basename(resolve(place)) !== basename(opened.source);
  return {
    name: onHub ? place : basename(opened.source),
    embedded: opened.source === embeddedModel,
    tokenizer,
    session,
    eosIds: endTokens(tokenizer, [opened.json, generationConfig], opened.source),
    advice: samplingAdvice(generationConfig, opened.source),
    [Symbol.asyncDispose]: () => session.dispose(),
  };
}

/** Shows downloads on a terminal, in one line that is rewritten when the figure changes. */
export function downloadProgress(): (progress: { readonly totalReceived: number; readonly totalSize: number }) => void {
  let shown = "";
  return ({ totalReceived, totalSize }) => {
    const figure = `${Math.floor((100 * totalReceived) / Math.max(1, totalSize))} %`;
    if (!process.stderr.isTTY || figure === shown) return;
    shown = figure;
    process.stderr.write(
      `\rdownloading ${figure} of ${(totalSize / 1e6).toFixed(0)} MB${figure === "100 %" ? "\n" : ""}`,
    );
  };
}
