import { DecoderSession } from "../../../generate/index.ts";
import type { DeviceOptions } from "../../../runtime/index.ts";
import type { GuardModel } from "./answers.ts";
import { type GuardPolicy, type GuardRole, type GuardTurn, parseVerdict, type Verdict } from "./policy.ts";
import { GuardCodec, type GuardTokenizer } from "./verdicts.ts";

export interface Moderation extends Verdict {
  /** Probability of "unsafe" among the two verdicts. */
  readonly score: number;
  /** Milliseconds until the first token of the verdict. */
  readonly ttftMs: number;
}

/** A guard at work. What a conversation begins with like the one before, the policy at least, is not read again. */
export class Guard {
  readonly policy: GuardPolicy;
  /** Tokens that its model takes, the verdict's among them. */
  readonly positions: number;
  readonly #codec: GuardCodec;
  readonly #session: DecoderSession;
  readonly #room: number;
  /** Tokens of the longest verdict. */
  readonly #longest: number;

  private constructor(codec: GuardCodec, session: DecoderSession, positions: number) {
    this.policy = codec.policy;
    this.positions = positions;
    this.#codec = codec;
    this.#session = session;
    const categories = this.policy.categories.map(({ code }) => code);
    this.#longest = codec.verdict({ safe: false, categories }).length;
    this.#room = positions - this.#longest;
  }

  /** @throws ArgumentError for a policy or tokenizer that gives no verdicts */
  static async open(
    { config, weights }: GuardModel,
    policy: GuardPolicy,
    tokenizer: GuardTokenizer,
    device: DeviceOptions = {},
  ): Promise<Guard> {
    const codec = new GuardCodec(policy, tokenizer);
    return new Guard(codec, await DecoderSession.open(config, weights, device), config.maxPositions);
  }

  /**
   * Judges the last turn of a conversation. One conversation at a time.
   * @throws ArgumentError for a conversation that cannot be judged; VerdictParseError where the model gives no verdict
   */
  async moderate(turns: readonly GuardTurn[], judge: GuardRole): Promise<Moderation> {
    const { first, tokenizer } = this.#codec;
    const began = performance.now();
    let logits = await this.#session.read(this.#codec.prompt(turns, judge, this.#room));
    const ttftMs = performance.now() - began;
    const score = 1 / (1 + Math.exp(logits[first.safe]! - logits[first.unsafe]!));
    const ids: number[] = [];
    for (;;) {
      const next = indexOfMost(logits);
      if (next === tokenizer.eosId || ids.length === this.#longest) break;
      ids.push(next);
      logits = await this.#session.advance([next]);
    }
    return { ...parseVerdict(tokenizer.decode(ids), this.policy), score, ttftMs };
  }

  dispose(): Promise<void> {
    return this.#session.dispose();
  }

  [Symbol.asyncDispose](): Promise<void> {
    return this.dispose();
  }
}

function indexOfMost(values: Float32Array): number {
  let best = 0;
  for (let i = 1; i < values.length; i++) if (values[i]! > values[best]!) best = i;
  return best;
}
