import { ArgumentError } from "../../tensor/index.ts";

/** Ways to tell whether a text gives a known answer, by the name that users give. */
export const verifierNames = ["exact", "number", "regex"] as const;
export type VerifierName = (typeof verifierNames)[number];

/** What a text earns: 1 where it is right, else 0. */
export type Verifier = (text: string) => number;

// A hyphen behind a letter, a digit or a bracket is a minus between two numbers rather than a sign.
const NUMBER = /(?:(?<![\w)\]])-)?(?:\d[\d,]*(?:\.\d+)?|\.\d+)(?:e[+-]?\d+)?/gi;

/**
 * Judges texts by an answer:
 * - `exact`: the text is the answer, white space around both aside;
 * - `number`: the last number in the text equals the answer (`1,200` and `1200.0` do), as answers to GSM8K are judged;
 * - `regex`: the answer is a regular expression that is found in the text.
 * @throws ArgumentError for an answer that is no number, or no regular expression
 */
export function verifierOf(name: VerifierName, answer: string): Verifier {
  switch (name) {
    case "exact": {
      const wanted = answer.trim();
      return (text) => Number(text.trim() === wanted);
    }
    case "number": {
      const [wanted, ...others] = numbersIn(answer);
      if (wanted === undefined || others.length > 0)
        throw new ArgumentError(`the answer ${JSON.stringify(answer)} is not one number`);
      return (text) => Number(numbersIn(text).at(-1) === wanted);
    }
    case "regex": {
      const pattern = expressionOf(answer);
      return (text) => Number(pattern.test(text));
    }
  }
}

function numbersIn(text: string): number[] {
  return Array.from(text.matchAll(NUMBER), ([found]) => numberOf(found)).filter((x) => x !== null);
}

function numberOf(text: string): number | null {
  const value = Number(text.replaceAll(",", ""));
  return text === "" || !Number.isFinite(value) ? null : value;
}

function expressionOf(source: string): RegExp {
  try {
    return new RegExp(source, "u");
  } catch (error) {
    throw new ArgumentError(
      `the answer ${JSON.stringify(source)} is no regular expression: ${error instanceof Error ? error.message : error}`,
    );
  }
}
