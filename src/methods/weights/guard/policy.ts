import { ArgumentError, PareError } from "../../../tensor/index.ts";

/** What a guard looks for. */
export interface GuardPolicy {
  readonly categories: readonly GuardCategory[];
}

export interface GuardCategory {
  /** `S1`, as verdicts name it: a letter and digits. */
  readonly code: string;
  readonly name: string;
  /** What belongs to it, in a sentence; may be empty. */
  readonly text: string;
}

export type GuardRole = "user" | "agent";

/** What somebody says in a conversation. */
export interface GuardTurn {
  readonly role: GuardRole;
  readonly text: string;
}

export interface Verdict {
  readonly safe: boolean;
  /** Codes of the categories that are violated; none where it is safe. */
  readonly categories: readonly string[];
}

/** What a model said is no verdict. It is never taken for "safe". */
export class VerdictParseError extends PareError {
  override readonly code = "VERDICT";
}

/** @throws ArgumentError for a policy without categories, or codes that verdicts cannot hold */
export function checkPolicy({ categories }: GuardPolicy): void {
  if (categories.length === 0) throw new ArgumentError("a policy needs categories");
  const codes = categories.map(({ code }) => code);
  const bad = codes.find((code) => !/^[A-Z]\d+$/.test(code));
  if (bad !== undefined) throw new ArgumentError(`a category's code is a capital letter and digits, not "${bad}"`);
  const twice = codes.find((code, i) => codes.indexOf(code) !== i);
  if (twice !== undefined) throw new ArgumentError(`two categories are called ${twice}`);
}

const speakers: Readonly<Record<GuardRole, string>> = { user: "User", agent: "Agent" };

/**
 * What a guard reads: the task, the policy, the conversation, and whose last turn is judged. The verdict follows.
 * @throws ArgumentError for an empty conversation, or one whose last turn is not that of the role to be judged
 */
export function buildGuardPrompt(policy: GuardPolicy, turns: readonly GuardTurn[], judge: GuardRole): string {
  checkPolicy(policy);
  const last = turns.at(-1);
  if (!last) throw new ArgumentError("an empty conversation cannot be judged");
  if (last.role !== judge)
    throw new ArgumentError(`the last turn is the ${last.role}'s, so that the ${judge}'s cannot be judged`);
  const rules = policy.categories.map(({ code, name, text }) => `${code}: ${name}.${text === "" ? "" : ` ${text}`}`);
  const said = turns.map(({ role, text }) => `${speakers[role]}: ${text}`);
  return [
    `Task: is the last ${speakers[judge]} message unsafe?`,
    "Unsafe is:",
    ...rules,
    "Conversation:",
    ...said,
    `Verdict on ${speakers[judge]}:\n`,
  ].join("\n");
}

/**
 * The latest turns with which a prompt has at most `room` tokens: the oldest turns are left out, never the policy.
 * @param count tokens of a text
 * @throws ArgumentError where not even the last turn alone fits
 */
export function fitGuardPrompt(
  policy: GuardPolicy,
  turns: readonly GuardTurn[],
  judge: GuardRole,
  { room, count }: { readonly room: number; count(text: string): number },
): string {
  for (let from = 0; ; from++) {
    const prompt = buildGuardPrompt(policy, turns.slice(from), judge);
    if (count(prompt) <= room) return prompt;
    if (from + 1 >= turns.length)
      throw new ArgumentError(
        `the policy and the last turn alone take ${count(prompt)} tokens, and the model has room for ${room}; shorten the turn or the policy`,
      );
  }
}

/** A verdict as a guard writes it. @throws ArgumentError for codes that the policy does not have, or none where unsafe */
export function verdictText({ safe, categories }: Verdict, policy: GuardPolicy): string {
  if (safe) return "safe";
  if (categories.length === 0) throw new ArgumentError("what is unsafe violates at least one category");
  checkCodes(categories, policy);
  return `unsafe\n${categories.join(",")}`;
}

/** @throws ArgumentError naming codes that the policy does not have */
export function checkCodes(categories: readonly string[], policy: GuardPolicy): void {
  const known = policy.categories.map(({ code }) => code);
  const unknown = categories.filter((code) => !known.includes(code));
  if (unknown.length > 0)
    throw new ArgumentError(`the policy has no category ${unknown.join(", ")}; it has ${known.join(", ")}`);
}

/**
 * What a guard wrote: `safe`, or `unsafe` and on the next line the codes with commas between them.
 * @throws VerdictParseError for anything else
 */
export function parseVerdict(text: string, policy: GuardPolicy): Verdict {
  const [head, codes, ...more] = text.trim().split(/\s*\n\s*/);
  if (head === "safe" && codes === undefined) return { safe: true, categories: [] };
  if (head !== "unsafe" || codes === undefined || more.length > 0)
    throw new VerdictParseError(
      `a verdict is "safe", or "unsafe" with the codes on a second line, not ${JSON.stringify(text)}`,
    );
  const categories = codes.split(",").map((code) => code.trim());
  const known = policy.categories.map(({ code }) => code);
  const unknown = categories.find((code) => !known.includes(code));
  if (unknown !== undefined)
    throw new VerdictParseError(
      `the verdict ${JSON.stringify(text)} names ${JSON.stringify(unknown)}, which the policy does not have; it has ${known.join(", ")}`,
    );
  return { safe: false, categories };
}
