import { readFile } from "node:fs/promises";
import { join } from "node:path";
import { explained } from "../../../formats/files.node.ts";
import type { Tokenizer } from "../../../formats/index.ts";
import { isJsonObject, type JsonObject, parseJson } from "../../../formats/json.ts";
import { writeModelFiles } from "../../../formats/node.ts";
import { requireTokenizer, type Weights } from "../../../models/index.ts";
import { openModel, saveModel } from "../../../models/node.ts";
import type { DeviceOptions } from "../../../runtime/index.ts";
import { ArgumentError } from "../../../tensor/index.ts";
import { Guard } from "./guard.ts";
import {
  checkCodes,
  checkPolicy,
  type GuardCategory,
  type GuardPolicy,
  type GuardRole,
  type GuardTurn,
} from "./policy.ts";
import type { GuardExample } from "./verdicts.ts";

/** Beside a guard's weights: its policy. */
const policyFile = "guard.json";

/** A policy from a `.json` file: `{ "categories": [{ "code", "name", "text" }] }`. @throws FileError; ArgumentError */
export async function readPolicy(path: string): Promise<GuardPolicy> {
  return policyOf(parseJson(await explained("read", path, readFile(path, "utf8")), path), path);
}

/** @throws ArgumentError */
export function policyOf(value: unknown, where: string): GuardPolicy {
  const listed = isJsonObject(value) ? value["categories"] : undefined;
  if (!Array.isArray(listed)) throw new ArgumentError(`${where}: a policy is { "categories": [...] }`);
  const categories = listed.map((category: unknown, i): GuardCategory => {
    const { code, name, text = "" } = isJsonObject(category) ? category : {};
    if (typeof code !== "string" || typeof name !== "string" || typeof text !== "string")
      throw new ArgumentError(`${where}: category ${i} needs a "code" and a "name", and may have a "text"`);
    return { code, name, text };
  });
  const policy = { categories };
  checkPolicy(policy);
  return policy;
}

/**
 * Labelled conversations, a line of JSON each: `{ "turns": [{ "role": "user", "text": "..." }], "judge": "user",
 * "unsafe": ["S1"] }`, the list empty where it is safe. `judge` is the last turn's role where it is left out.
 * @throws FileError; ArgumentError naming the line, for codes that the policy does not have too
 */
export async function readGuardExamples(path: string, policy: GuardPolicy): Promise<GuardExample[]> {
  const lines = (await explained("read", path, readFile(path, "utf8"))).split("\n");
  return lines.flatMap((line, i) => {
    if (line.trim() === "") return [];
    const where = `${path}:${i + 1}`;
    const value = parseJson(line, where);
    const { turns, judge } = conversationOf(value, where);
    const unsafe = (value as JsonObject)["unsafe"];
    if (!Array.isArray(unsafe) || !unsafe.every((code) => typeof code === "string"))
      throw new ArgumentError(`${where}: "unsafe" lists the codes that are violated, and is [] where it is safe`);
    try {
      checkCodes(unsafe, policy);
    } catch (cause) {
      throw new ArgumentError(`${where}: ${(cause as Error).message}`, { cause });
    }
    return [{ turns, judge, verdict: { safe: unsafe.length === 0, categories: unsafe } }];
  });
}

/** A conversation out of parsed JSON. @throws ArgumentError */
export function conversationOf(value: unknown, where: string): Pick<GuardExample, "turns" | "judge"> {
  const given = isJsonObject(value) ? value : {};
  const turns = given["turns"];
  const isRole = (role: unknown): role is GuardRole => role === "user" || role === "agent";
  const isTurn = (turn: unknown): turn is GuardTurn =>
    isJsonObject(turn) && isRole(turn["role"]) && typeof turn["text"] === "string";
  if (!Array.isArray(turns) || !turns.every(isTurn))
    throw new ArgumentError(`${where}: "turns" lists { "role": "user" or "agent", "text" }`);
  const judge = given["judge"] ?? turns.at(-1)?.role ?? "user";
  if (!isRole(judge)) throw new ArgumentError(`${where}: "judge" is "user" or "agent", not ${JSON.stringify(judge)}`);
  return { turns: turns.map(({ role, text }) => ({ role, text })), judge };
}

/** Saves a guard: the model's folder with its policy in `guard.json`. @throws as `saveModel` */
export async function saveGuard(
  folder: string,
  guard: {
    readonly json: JsonObject;
    readonly weights: Weights;
    readonly tokenizer: Tokenizer;
    readonly policy: GuardPolicy;
  },
): Promise<void> {
  await saveModel(folder, guard);
  await writeModelFiles(folder, { [policyFile]: { ...guard.policy } });
}

/** A guard from the folder that `saveGuard` wrote. @throws as `openModel`; ArgumentError where there is no policy */
export async function loadGuard(folder: string, device: DeviceOptions = {}): Promise<Guard> {
  await using model = await openModel(folder);
  return await Guard.open(model, await readPolicy(join(folder, policyFile)), requireTokenizer(model), device);
}
