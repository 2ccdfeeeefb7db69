import type { Judge, JudgeCall, KickItem, LoggedJudge, Reader } from "../../../src/evaluate/index.ts";
import { Rng } from "../../../src/tensor/index.ts";
import { characters } from "../scorers.ts";

/** A reader that answers each prompt, as text, by a function, and weighs continuations by another. */
export function plainReader(
  answer: (prompt: string) => string,
  weigh: (prompt: string, continuation: string) => number = () => 0,
  maxLength = 10_000,
): Reader & { readonly prompts: string[] } {
  const prompts: string[] = [];
  return {
    tokenizer: characters,
    maxLength,
    prompts,
    async answer(asked) {
      return asked.map((prompt) => {
        const text = typeof prompt === "string" ? prompt : characters.decode(prompt);
        prompts.push(text);
        const said = answer(text);
        return { text: said, ids: characters.encode(said) };
      });
    },
    chat: (messages) => characters.encode(messages.map(({ content }) => String(content)).join("\n")),
    weigh: async (asked, continuations) => asked.map((prompt) => continuations.map((next) => weigh(prompt, next))),
  };
}

/** Knows the items: what it says holds `said` of the last item whose question or text is in the prompt. */
export function oracle(items: readonly KickItem[], said: (item: KickItem) => string): Reader {
  const of = (prompt: string): string => {
    const at = (item: KickItem): number => prompt.lastIndexOf(item.question || (item.context ?? ""));
    const found = items.toSorted((a, b) => at(b) - at(a))[0]!;
    return said(found);
  };
  return plainReader(of, (prompt, next) => Number(next.trim() === of(prompt)));
}

/** Says one of four letters by chance. */
export function guesser(seed: number): Reader {
  const rng = new Rng(seed);
  return plainReader(
    () => "ABCD"[rng.integer(4)]!,
    () => rng.uniform(),
  );
}

export const silent = plainReader(() => "");

/** A judge with given replies, one after the other, and what was logged of it. */
export function listJudge(compare: Judge["compare"]): LoggedJudge & { readonly calls: JudgeCall[] } {
  const calls: JudgeCall[] = [];
  return { judge: { name: "list", compare }, log: (call) => void calls.push(call), calls };
}
