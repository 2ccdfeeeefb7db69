import { FormatError, LimitError } from "./errors.ts";
import { tokenizerLimits } from "./hf-limits.ts";
import { makePipeline } from "./tokenizer-pipeline.ts";

/** A pattern as tokenizer.json writes it: a literal string or a regular expression in Oniguruma's syntax. */
export type Pattern = { readonly String: string } | { readonly Regex: string };

export function isPattern(value: unknown): value is Pattern {
  if (value === null || typeof value !== "object") return false;
  const { String: literal, Regex: regex } = value as { String?: unknown; Regex?: unknown };
  return typeof literal === "string"
    ? literal !== "" && regex === undefined
    : typeof regex === "string" && literal === undefined;
}

/**
 * Compiles a pattern of a tokenizer, after `checkRegex`, to match where it is told to (`y`).
 * @throws FormatError, LimitError
 */
export function compilePattern(pattern: Pattern, where: string): RegExp {
  if ("Regex" in pattern) checkRegex(pattern.Regex, where, 1);
  try {
    const pipeline = makePipeline({ pre_tokenizer: { type: "Split", pattern, behavior: "Isolated" } });
    return new RegExp(pipeline.pre_tokenizer!.pattern!.source, "uy");
  } catch (cause) {
    throw new FormatError(`${where}: its pattern does not compile: ${(cause as Error).message}`, { cause });
  }
}

/**
 * Refuses regular expressions that could take very long. JavaScript's backtrack and cannot be stopped: what counts is
 * how many open-ended repetitions something after them can fail and make to be tried again, each of which multiplies
 * the time from one place in a text by its length. `\s+` costs nothing so, `\s+x` counts one, `\s+\s+x` two. Repeating
 * a group that holds a choice or a repetition takes exponential time, as `(a+)+x` does, and so can back references.
 * @param allowed how many such repetitions may be in a row: with none, finding all matches takes linear time
 * @throws FormatError, LimitError
 */
export function checkRegex(regex: string, where: string, allowed: 0 | 1): void {
  const name = `${where}: the regular expression ${JSON.stringify(regex.length > 80 ? `${regex.slice(0, 80)}…` : regex)}`;
  if (regex.length > tokenizerLimits.regexLength) {
    throw new LimitError(`${name} is longer than ${tokenizerLimits.regexLength} characters`);
  }
  if (new RegexReader(regex, name).read() > allowed) {
    throw new LimitError(
      `${name} repeats without end, and more than once what follows can undo, which takes very long`,
    );
  }
}

/** What a part of a regular expression can cost. */
interface Cost {
  /** Open-ended repetitions in a row that something after them can undo. */
  readonly undone: number;
  /** Those at the end, which nothing has undone yet. */
  readonly ending: number;
  /** Whether it has neither choices nor open-ended repetitions. */
  readonly simple: boolean;
}

const single: Cost = { undone: 0, ending: 0, simple: true };

/** Reads the structure of a regular expression in Oniguruma's syntax; what is no syntax is left to the compiler. */
class RegexReader {
  readonly #regex: string;
  readonly #name: string;
  #at = 0;
  #depth = 0;

  constructor(regex: string, name: string) {
    this.#regex = regex;
    this.#name = name;
  }

  /** The repetitions that something can undo. */
  read(): number {
    const { undone } = this.#alternatives();
    if (this.#at < this.#regex.length) throw new FormatError(`${this.#name} closes a group that it never opened`);
    return undone;
  }

  #alternatives(): Cost {
    let cost = this.#sequence();
    while (this.#regex[this.#at] === "|") {
      this.#at++;
      const { undone, ending } = this.#sequence();
      cost = { undone: Math.max(cost.undone, undone), ending: Math.max(cost.ending, ending), simple: false };
    }
    return cost;
  }

  #sequence(): Cost {
    let [undone, ending, simple] = [0, 0, true];
    while (this.#at < this.#regex.length && !"|)".includes(this.#regex[this.#at]!)) {
      const atom = this.#atom();
      const { least, most } = this.#quantifier();
      if (most > 1 && !atom.simple) {
        throw new FormatError(
          `${this.#name} repeats a group that holds a choice or a repetition, which can take very long`,
        );
      }
      if (least > 0) {
        undone += ending;
        ending = 0;
      }
      const endless = most > tokenizerLimits.regexTimes;
      undone += atom.undone;
      ending += atom.ending + (endless ? 1 : 0);
      simple &&= atom.simple && !endless;
    }
    return { undone, ending, simple };
  }

  #atom(): Cost {
    const start = this.#at++;
    switch (this.#regex[start]) {
      case "\\":
        if (/[1-9kg]/.test(this.#regex[this.#at++] ?? "")) {
          throw new FormatError(`${this.#name} refers back to what it matched, which can take very long`);
        }
        return single;
      case "[":
        this.#at = endOfClass(this.#regex, start) + 1;
        return single;
      case "(":
        return this.#group();
      default:
        return single;
    }
  }

  #group(): Cost {
    if (++this.#depth > tokenizerLimits.regexDepth) {
      throw new LimitError(`${this.#name} nests deeper than ${tokenizerLimits.regexDepth} groups`);
    }
    const opening = /^\?(?:<?[=!]|<\w+>|[\w-]*:|>)/.exec(this.#regex.slice(this.#at, this.#at + 80))?.[0] ?? "";
    this.#at += opening.length;
    const { undone, ending, simple } = this.#alternatives();
    this.#at++;
    this.#depth--;
    // Looking around goes over the text and then starts again from where it was.
    return /^\?<?[=!]/.test(opening) ? { undone: undone + ending, ending: 0, simple } : { undone, ending, simple };
  }

  #quantifier(): { least: number; most: number } {
    const found = /^(?:([*+?])|\{(\d*)(,?)(\d*)\})[+?]?/.exec(this.#regex.slice(this.#at, this.#at + 24));
    if (!found) return { least: 1, most: 1 };
    const [text, sign, from, comma, to] = found;
    this.#at += text.length;
    if (sign) return { least: sign === "+" ? 1 : 0, most: sign === "?" ? 1 : Number.POSITIVE_INFINITY };
    return { least: Number(from), most: to ? Number(to) : comma ? Number.POSITIVE_INFINITY : Number(from) };
  }
}

/** Index of the bracket that closes the character class opened at `start`; classes nest. */
function endOfClass(regex: string, start: number): number {
  let depth = 0;
  for (let i = start; i < regex.length; i++) {
    if (regex[i] === "\\") i++;
    else if (regex[i] === "[") {
      depth++;
      if (regex[i + 1] === "^") i++;
      // A bracket right after the opening one is a member.
      if (regex[i + 1] === "]") i++;
    } else if (regex[i] === "]" && --depth === 0) return i;
  }
  return regex.length;
}
