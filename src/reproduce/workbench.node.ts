import { readFile } from "node:fs/promises";
import { join } from "node:path";
import type { Tokenizer } from "../formats/index.ts";
import { requireTokenizer } from "../models/index.ts";
import { embeddedModel, openModel } from "../models/node.ts";
import type { LanguageModel, Workbench } from "./workbench.ts";

/** Works on what comes with the package. */
export function localWorkbench(): Workbench {
  let model: Promise<LanguageModel> | undefined;
  return { languageModel: () => (model ??= openEmbedded()) };
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
