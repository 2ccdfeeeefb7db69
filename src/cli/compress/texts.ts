import { join } from "node:path";
import type { Tokenizer } from "../../formats/index.ts";
import { encodeCalibration } from "../../methods/index.ts";
import { embeddedModel } from "../../models/node.ts";
import { nameOf, textOf } from "../text-file.ts";

/** Text for a model: to calibrate on, and to measure on. */
export interface Texts {
  /** Null where there is none. */
  readonly calibration: readonly number[] | null;
  /** Text that calibration does not see; null where there is none. */
  readonly measured: MeasuredText | null;
}

export interface MeasuredText {
  readonly name: string;
  readonly tokens: readonly number[];
}

/** Share of a calibration text that is kept for measuring where no other text is given. */
const KEPT = 0.1;

/**
 * Reads the texts that a user names. The model that comes with pare brings its own; where only a text to calibrate on is
 * named, its last tenth is measured on instead.
 * @throws UsageError for a file that cannot be read; FormatError for one that is not UTF-8; ArgumentError for an empty one
 */
export async function readTexts(
  source: string,
  tokenizer: Tokenizer,
  { calibrate, text }: { readonly calibrate: string | undefined; readonly text: string | undefined },
  note: (line: string) => void,
): Promise<Texts> {
  const own = source === embeddedModel;
  const all = calibrate
    ? encodeCalibration(tokenizer, await textOf(calibrate), note)
    : own
      ? encodeCalibration(tokenizer, await ownText("training-sample.txt"), note)
      : null;
  if (text !== undefined || own) return { calibration: all, measured: await measuredText(tokenizer, text, note) };
  if (!all) return { calibration: null, measured: null };
  const cut = Math.floor(all.length * (1 - KEPT));
  const name = `the last tenth of ${nameOf(calibrate!)}`;
  return { calibration: all.slice(0, cut), measured: { name, tokens: all.slice(cut) } };
}

/** The text of a file, or the one that comes with pare and no model has seen. @throws as `readTexts` */
export async function measuredText(
  tokenizer: Tokenizer,
  path: string | undefined,
  note: (line: string) => void,
): Promise<MeasuredText> {
  const text = path === undefined ? await ownText(HELD_OUT) : await textOf(path);
  return { name: path === undefined ? HELD_OUT : nameOf(path), tokens: encodeCalibration(tokenizer, text, note) };
}

const HELD_OUT = "held-out.txt";

/** A text of the embedded model without the marks between its stories, which other tokenizers read as text. */
async function ownText(file: string): Promise<string> {
  return (await textOf(join(embeddedModel, file))).replaceAll("<|endoftext|>", "\n");
}
