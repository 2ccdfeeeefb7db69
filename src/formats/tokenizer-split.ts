import { toByteChars } from "./bpe-bytes.ts";
import { FormatError, LimitError } from "./errors.ts";
import { tokenizerLimits } from "./hf-limits.ts";
import { compilePattern, isPattern } from "./tokenizer-regex.ts";

/** GPT-2's words: contractions, letters, digits and other signs, each with one space before it, and runs of space. */
export const gpt2Regex = "'s|'t|'re|'ve|'m|'ll|'d| ?\\p{L}+| ?\\p{N}+| ?[^\\s\\p{L}\\p{N}]+|\\s+(?!\\S)|\\s+";

/** Llama 3's words: contractions in any case, digits by threes, and line ends apart from other space. */
export const llama3Regex =
  "(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\\r\\n\\p{L}\\p{N}]?\\p{L}+|\\p{N}{1,3}| ?[^\\s\\p{L}\\p{N}]+[\\r\\n]*|\\s*[\\r\\n]+|\\s+(?!\\S)|\\s+";

/** ASCII signs count as punctuation, whatever Unicode calls them. */
const punctuation = "[\\p{P}!-/:-@\\[-`{-~]";

/** What becomes of the parts of a text that a pattern matches. */
const behaviors = ["Removed", "Isolated", "MergedWithPrevious", "MergedWithNext", "Contiguous"] as const;
type Behavior = (typeof behaviors)[number];

/** Cuts one piece of text; `atStart` says whether the piece begins where the whole text does. */
type Step = (piece: string, atStart: boolean) => readonly string[];

/** A pre-tokenizer: it cuts text into the words that the model sees one at a time. */
export interface Splitter {
  /** Whether the model spells words in bytes (`toByteChars`); otherwise words are what the model sees. */
  readonly bytes: boolean;
  split(text: string, atStart: boolean): readonly string[];
}

/** @throws FormatError when `config`, a `pre_tokenizer` of a tokenizer.json, is malformed or of an unknown kind */
export function makeSplitter(config: unknown): Splitter {
  const configs = config === null || config === undefined ? [] : flatten(config);
  const bytes = configs.at(-1)?.["type"] === "ByteLevel";
  const steps = configs.flatMap((step, i) => stepsOf(step, bytes && i === configs.length - 1));
  return {
    bytes,
    split(text, atStart) {
      let pieces: readonly string[] = [text];
      for (const step of steps) {
        pieces =
          pieces.length === 1
            ? step(pieces[0]!, atStart)
            : pieces.flatMap((piece, i) => step(piece, atStart && i === 0));
      }
      return pieces;
    },
  };
}

type Config = Readonly<Record<string, unknown>>;

/** The steps of nested sequences, in order. */
function flatten(config: unknown): Config[] {
  if (config === null || typeof config !== "object")
    throw new FormatError("tokenizer.json: a pre_tokenizer is not an object");
  const { type, pretokenizers } = config as Config;
  if (type !== "Sequence") return [config as Config];
  if (!Array.isArray(pretokenizers))
    throw new FormatError("tokenizer.json: a Sequence pre_tokenizer has no list of pretokenizers");
  return pretokenizers.flatMap(flatten);
}

function stepsOf(config: Config, last: boolean): Step[] {
  const where = `tokenizer.json: pre_tokenizer ${config["type"]}`;
  const regex = (source: string, behavior: Behavior, invert = false): Step =>
    splitStep(compilePattern({ Regex: source }, where), behavior, invert);
  switch (config["type"]) {
    case "ByteLevel": {
      const steps: Step[] = [];
      if (config["add_prefix_space"] === true) steps.push((piece) => [piece.startsWith(" ") ? piece : ` ${piece}`]);
      if (config["use_regex"] !== false) steps.push(regex(gpt2Regex, "Isolated"));
      if (!last) steps.push((piece) => [toByteChars(piece)]);
      return steps;
    }
    case "Split": {
      if (!isPattern(config["pattern"]))
        throw new FormatError(`${where}: its pattern is neither a string nor a regular expression`);
      return [
        splitStep(compilePattern(config["pattern"], where), behaviorOf(config, where), config["invert"] === true),
      ];
    }
    case "Digits":
      return [regex(config["individual_digits"] === true ? "\\p{N}" : "\\p{N}+", "Isolated")];
    case "Punctuation":
      return [regex(punctuation, behaviorOf(config, where))];
    case "Whitespace":
      return [regex("\\w+|[^\\w\\s]+", "Removed", true)];
    case "WhitespaceSplit":
      return [regex("\\s", "Removed")];
    case "BertPreTokenizer":
      return [regex("\\s", "Removed"), regex(punctuation, "Isolated")];
    case "CharDelimiterSplit": {
      const { delimiter } = config;
      if (typeof delimiter !== "string" || delimiter === "") throw new FormatError(`${where}: it has no delimiter`);
      return [splitStep(compilePattern({ String: delimiter }, where), "Removed", false)];
    }
    case "Metaspace":
      return metaspaceSteps(config, where);
    default:
      throw new FormatError(`tokenizer.json: the pre_tokenizer ${JSON.stringify(config["type"])} is not supported`);
  }
}

function behaviorOf(config: Config, where: string): Behavior {
  const behavior = (config["behavior"] ?? "Isolated") as Behavior;
  if (!behaviors.includes(behavior)) {
    throw new FormatError(`${where}: its behavior is ${JSON.stringify(behavior)}, not one of ${behaviors.join(", ")}`);
  }
  return behavior;
}

/** SentencePiece's convention: spaces become visible signs that begin words. */
function metaspaceSteps(config: Config, where: string): Step[] {
  const { replacement = "▁", prepend_scheme: scheme, add_prefix_space: legacy, split } = config;
  if (typeof replacement !== "string" || replacement === "") throw new FormatError(`${where}: it has no replacement`);
  const prepend = scheme ?? (legacy === false ? "never" : "always");
  const mark: Step = (piece, atStart) => {
    const marked = piece.replaceAll(" ", replacement);
    const wanted = prepend === "always" || (prepend === "first" && atStart);
    return [wanted && !marked.startsWith(replacement) ? replacement + marked : marked];
  };
  if (split === false) return [mark];
  return [mark, splitStep(compilePattern({ String: replacement }, where), "MergedWithNext", false)];
}

/** A stretch of text, and whether it counts as a match. */
interface Part {
  readonly text: string;
  readonly matched: boolean;
}

/** Cuts at the matches of `regex`, or with `invert` at what lies between them; empty pieces vanish. */
function splitStep(regex: RegExp, behavior: Behavior, invert: boolean): Step {
  return (piece) => joined(partsOf(piece, regex, invert), behavior);
}

/** Places in a text between looks at the clock. */
const placesPerLook = 256;

/**
 * The matches of `regex`, which is tried at one place after the other (`y`), and what lies between them.
 * @throws LimitError when it takes too long
 */
function partsOf(text: string, regex: RegExp, invert: boolean): Part[] {
  const parts: Part[] = [];
  const add = (from: number, to: number, matched: boolean): void => {
    if (from < to) parts.push({ text: text.slice(from, to), matched: matched !== invert });
  };
  const begun = performance.now();
  const { regexMilliseconds, regexMillisecondsPerMegabyte } = tokenizerLimits;
  const allowed = regexMilliseconds + (text.length / 1e6) * regexMillisecondsPerMegabyte;
  let end = 0;
  let places = 0;
  for (let at = 0; at < text.length; ) {
    if (++places % placesPerLook === 0 && performance.now() - begun > allowed) {
      throw new LimitError(
        `the tokenizer's regular expression ${regex} takes too long for a text of ${text.length} characters`,
      );
    }
    regex.lastIndex = at;
    if (!regex.test(text)) {
      at += text.codePointAt(at)! > 0xffff ? 2 : 1;
      continue;
    }
    add(end, at, false);
    end = regex.lastIndex;
    add(at, end, true);
    at = end > at ? end : at + (text.codePointAt(at)! > 0xffff ? 2 : 1);
  }
  add(end, text.length, false);
  return parts;
}

function joined(parts: readonly Part[], behavior: Behavior): string[] {
  const pieces: string[] = [];
  switch (behavior) {
    case "Removed":
      return parts.filter(({ matched }) => !matched).map(({ text }) => text);
    case "Isolated":
      return parts.map(({ text }) => text);
    case "Contiguous":
      for (const [i, { text, matched }] of parts.entries()) {
        if (i > 0 && matched === parts[i - 1]!.matched) pieces.push(pieces.pop()! + text);
        else pieces.push(text);
      }
      return pieces;
    case "MergedWithPrevious":
      for (const [i, { text, matched }] of parts.entries()) {
        if (matched && i > 0 && !parts[i - 1]!.matched) pieces.push(pieces.pop()! + text);
        else pieces.push(text);
      }
      return pieces;
    case "MergedWithNext":
      for (const [i, { text, matched }] of parts.entries()) {
        const before = parts[i - 1];
        if (before?.matched && !matched) pieces.push(pieces.pop()! + text);
        else pieces.push(text);
      }
      return pieces;
  }
}
