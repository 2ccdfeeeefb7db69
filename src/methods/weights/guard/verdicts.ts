import type { Tokenizer } from "../../../formats/index.ts";
import { ArgumentError } from "../../../tensor/index.ts";
import type { AnsweredPrompt } from "../../../train/index.ts";
import {
  buildGuardPrompt,
  fitGuardPrompt,
  type GuardPolicy,
  type GuardRole,
  type GuardTurn,
  type Verdict,
  verdictText,
} from "./policy.ts";

/** What of a tokenizer a guard needs. */
export type GuardTokenizer = Pick<Tokenizer, "encode" | "decode" | "bosId" | "eosId">;

/** A conversation with the verdict on its last turn. */
export interface GuardExample {
  readonly turns: readonly GuardTurn[];
  readonly judge: GuardRole;
  readonly verdict: Verdict;
}

/** Prompts and verdicts of a policy in tokens. */
export class GuardCodec {
  readonly policy: GuardPolicy;
  readonly tokenizer: GuardTokenizer;
  /** First tokens of the two verdicts. */
  readonly first: { readonly safe: number; readonly unsafe: number };
  readonly #end: number;

  /** @throws ArgumentError where a verdict has no end, or both begin with the same token */
  constructor(policy: GuardPolicy, tokenizer: GuardTokenizer) {
    if (tokenizer.eosId === undefined) throw new ArgumentError("the tokenizer has no token that ends a text");
    this.policy = policy;
    this.tokenizer = tokenizer;
    this.#end = tokenizer.eosId;
    const [safe, unsafe] = ["safe", "unsafe"].map((text) => this.#encode(text)[0]!);
    if (safe === unsafe) throw new ArgumentError('"safe" and "unsafe" begin with the same token of this tokenizer');
    this.first = { safe: safe!, unsafe: unsafe! };
  }

  /** Tokens of a prompt; the oldest turns are left out beyond `room` tokens. */
  prompt(turns: readonly GuardTurn[], judge: GuardRole, room = Infinity): number[] {
    const encoded = (text: string): number[] => [...this.#begin(), ...this.#encode(text)];
    if (room === Infinity) return encoded(buildGuardPrompt(this.policy, turns, judge));
    return encoded(fitGuardPrompt(this.policy, turns, judge, { room, count: (text) => encoded(text).length }));
  }

  /** Tokens of a verdict, with the one that ends it. */
  verdict(verdict: Verdict): number[] {
    return [...this.#encode(verdictText(verdict, this.policy)), this.#end];
  }

  /** A prompt with its verdict. @param room tokens of both together */
  example({ turns, judge, verdict }: GuardExample, room = Infinity): AnsweredPrompt {
    const answer = this.verdict(verdict);
    return { ids: [...this.prompt(turns, judge, room - answer.length), ...answer], scored: answer.length };
  }

  /** All tokens that verdicts may need, increasing: of each category alone, and of each two in the policy's order. */
  ids(): number[] {
    const codes = this.policy.categories.map(({ code }) => code);
    const lists = codes.flatMap((code, i) => [[code], ...codes.slice(i + 1).map((later) => [code, later])]);
    const verdicts = [this.verdict({ safe: true, categories: [] })];
    for (const categories of [...lists, codes]) verdicts.push(this.verdict({ safe: false, categories }));
    return [...new Set(verdicts.flat())].sort((a, b) => a - b);
  }

  #encode(text: string): number[] {
    return this.tokenizer.encode(text, { addSpecialTokens: false });
  }

  #begin(): number[] {
    const { bosId } = this.tokenizer;
    return bosId === undefined ? [] : [bosId];
  }
}

/** @throws ArgumentError listing tokens of the verdicts in `examples` that are not among `ids` */
export function checkVerdictIds(
  codec: GuardCodec,
  ids: readonly number[],
  examples: readonly Pick<GuardExample, "verdict">[],
): void {
  const kept = new Set(ids);
  const needed = new Set(examples.flatMap(({ verdict }) => codec.verdict(verdict)));
  const missing = [...needed].filter((id) => !kept.has(id));
  if (missing.length === 0) return;
  const shown = missing.map((id) => `${JSON.stringify(codec.tokenizer.decode([id]))} (${id})`);
  throw new ArgumentError(`verdicts need tokens that the head would lose: ${shown.join(", ")}`);
}
