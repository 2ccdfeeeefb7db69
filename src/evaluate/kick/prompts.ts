import { TaskError } from "../errors.ts";
import { encodePrompt } from "../scorer.ts";
import type { Reader } from "./reader.ts";

/** A template with each `{name}` replaced by that text; what is put in is not looked at again. */
export function filled(template: string, texts: Readonly<Record<string, string>>): string {
  return template.replace(/\{(\w+)\}/g, (whole, name: string) => texts[name] ?? whole);
}

/** Tokens of a prompt. */
export function tokensOf({ tokenizer }: Pick<Reader, "tokenizer">, prompt: string): number {
  return encodePrompt(tokenizer, prompt).length;
}

/**
 * A prompt that leaves room for its answer: the evidence loses its end where it is too long, what asks stays whole.
 * @param build the prompt with that evidence
 * @throws TaskError where the prompt is too long without any evidence
 */
export function fitted(
  reader: Pick<Reader, "tokenizer" | "maxLength">,
  evidence: string,
  build: (evidence: string) => string,
  answerTokens: number,
): string {
  const room = reader.maxLength - Math.min(answerTokens, reader.maxLength >> 1);
  const whole = build(evidence);
  if (tokensOf(reader, whole) <= room) return whole;
  const bare = tokensOf(reader, build(""));
  if (bare > room)
    throw new TaskError(
      `a question of ${bare} tokens leaves no room for its answer: the model takes ${reader.maxLength} tokens`,
    );
  const ids = reader.tokenizer.encode(evidence, { addSpecialTokens: false });
  // Where two texts meet, tokens may differ from those of each alone; a little less always fits.
  for (let kept = Math.min(ids.length, room - bare); kept > 0; kept = Math.floor(0.98 * kept - 1)) {
    const prompt = build(reader.tokenizer.decode(ids.slice(0, kept)));
    if (tokensOf(reader, prompt) <= room) return prompt;
  }
  return build("");
}
