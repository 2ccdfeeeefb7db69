import { encodePrompt } from "../../evaluate/index.ts";
import type { Tokenizer } from "../../formats/index.ts";
import { PareError } from "../../tensor/index.ts";
import { type Prompt, type Verifier, type VerifierName, verifierOf } from "../../train/index.ts";
import { UsageError } from "../errors.ts";
import { readJsonLines } from "../json-lines.ts";

/** What a model is asked, with what tells right answers from wrong ones. */
export interface Question extends Prompt {
  readonly judge: Verifier;
}

export interface QuestionOptions {
  readonly verify: VerifierName;
  /** Tokens of a completion at most. */
  readonly maxTokens: number;
  /** Tokens that the model takes. */
  readonly maxPositions: number;
  /** Whether prompts are continued as they stand, even where the model has a chat template. */
  readonly raw: boolean;
}

/**
 * Reads prompts with their answers, one JSON object a line: `{"prompt": "...", "answer": "..."}`.
 * @throws UsageError naming file and line of what is wrong: no JSON, nothing asked, an answer that the verifier has no use
 *   for, a prompt that leaves no room for its completion; and for a file without prompts
 */
export async function readQuestions(tokenizer: Tokenizer, path: string, options: QuestionOptions): Promise<Question[]> {
  const { verify, maxTokens, maxPositions, raw } = options;
  const questions = await readJsonLines(path, { prompt: "3+5=", answer: "8" }, ({ prompt, answer }, fail) => {
    if (typeof prompt !== "string" || prompt === "") return fail('it lacks a "prompt", a text that is not empty');
    if (!(typeof answer === "string" && answer !== "") && !(typeof answer === "number" && Number.isFinite(answer)))
      return fail('it lacks an "answer", a text that is not empty or a number');
    const ids = idsOf(tokenizer, prompt, raw);
    if (ids.length + maxTokens - 1 > maxPositions)
      fail(
        `a prompt of ${ids.length} tokens with a completion of ${maxTokens} is longer than the ${maxPositions} tokens that the model takes; shorten it, or lower --max-tokens`,
      );
    try {
      return { ids, judge: verifierOf(verify, String(answer)) };
    } catch (error) {
      if (error instanceof PareError) return fail(error.message);
      throw error;
    }
  });
  if (questions.length === 0)
    throw new UsageError(`${path} has no prompts; each line is one, such as {"prompt": "3+5=", "answer": "8"}`);
  return questions;
}

function idsOf(tokenizer: Tokenizer, prompt: string, raw: boolean): number[] {
  if (tokenizer.chatTemplate && !raw)
    return tokenizer.encodeChat([{ role: "user", content: prompt }], { addGenerationPrompt: true });
  return encodePrompt(tokenizer, prompt);
}
