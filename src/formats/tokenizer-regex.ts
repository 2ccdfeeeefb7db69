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
 * Compiles a pattern of a tokenizer. JavaScript's regular expressions backtrack and cannot be stopped, so that the
 * ones that could take exponential time are refused before they meet any text.
 * @throws FormatError, LimitError
 */
export function compilePattern(pattern: Pattern, where: string): RegExp {
  if ("Regex" in pattern) checkRegex(pattern.Regex, where);
  try {
    return makePipeline({ pre_tokenizer: { type: "Split", pattern, behavior: "Isolated" } }).pre_tokenizer!.pattern!;
  } catch (cause) {
    throw new FormatError(`${where}: its pattern does not compile: ${(cause as Error).message}`, { cause });
  }
}

/** What a group, or the whole expression, holds up to the character being read. */
interface Group {
  /** Open-ended repetitions in the alternative being read. */
  repetitions: number;
  /** The most that any alternative before it has. */
  most: number;
  /** Whether it, or a group in it, offers a choice. */
  alternatives: boolean;
}

/**
 * Refuses the shapes that make backtracking exponential: back references, and a repeated group that itself holds a
 * choice or an open-ended repetition, as in `(a+)+` or `(a|a)*`. Open-ended repetitions one after the other make it
 * polynomial, and their number is capped.
 */
export function checkRegex(regex: string, where: string): void {
  const name = `${where}: the regular expression ${JSON.stringify(regex.length > 80 ? `${regex.slice(0, 80)}…` : regex)}`;
  if (regex.length > tokenizerLimits.regexLength) {
    throw new LimitError(`${name} is longer than ${tokenizerLimits.regexLength} characters`);
  }
  const tooMany = (): never => {
    throw new LimitError(
      `${name} has more than ${tokenizerLimits.regexRepetitions} open-ended repetitions in a row, which can take very long`,
    );
  };
  const open: Group[] = [{ repetitions: 0, most: 0, alternatives: false }];
  /** The group that has just closed, when that is what a quantifier would repeat. */
  let closed: Group | undefined;
  for (let i = 0; i < regex.length; i++) {
    const group = open.at(-1)!;
    const quantifier = /^(?:[*+]|\{(\d*)(,?)(\d*)\})/.exec(regex.slice(i, i + 24));
    if (quantifier && i > 0) {
      const [text, least, comma, most] = quantifier;
      const times = least === undefined || (comma && !most) ? Number.POSITIVE_INFINITY : Number(most || least || 0);
      if (closed && times > 1 && (closed.alternatives || closed.most > 0)) {
        throw new FormatError(
          `${name} repeats a group that holds a choice or a repetition, which can take exponential time`,
        );
      }
      if (times > 1000 && ++group.repetitions > tokenizerLimits.regexRepetitions) tooMany();
      i += text.length - 1;
      // A second sign makes it lazy or possessive; it repeats nothing more.
      if (regex[i + 1] === "+" || regex[i + 1] === "?") i++;
      closed = undefined;
      continue;
    }
    closed = undefined;
    switch (regex[i]) {
      case "\\":
        if (/[1-9kg]/.test(regex[i + 1] ?? "")) {
          throw new FormatError(`${name} refers back to what it matched, which can take exponential time`);
        }
        i++;
        break;
      case "[":
        i = endOfClass(regex, i);
        break;
      case "(":
        open.push({ repetitions: 0, most: 0, alternatives: false });
        break;
      case "|":
        group.alternatives = true;
        group.most = Math.max(group.most, group.repetitions);
        group.repetitions = 0;
        break;
      case ")":
        if (open.length === 1) throw new FormatError(`${name} closes a group that it never opened`);
        open.pop();
        group.most = Math.max(group.most, group.repetitions);
        open.at(-1)!.repetitions += group.most;
        if (open.at(-1)!.repetitions > tokenizerLimits.regexRepetitions) tooMany();
        open.at(-1)!.alternatives ||= group.alternatives;
        closed = group;
        break;
    }
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
