import { mkdtemp, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { guardSite } from "../../src/cli/server/guard-site.ts";
import { type RunningServer, type ServerOptions, startServer } from "../../src/cli/server/server.ts";
import { distillGuard, Guard, type GuardModel } from "../../src/methods/index.ts";
import { saveGuard } from "../../src/methods/node.ts";
import { codec, conversations, guardModel, json, policy, tokenizer } from "../methods/weights/guard/small.ts";
import { start } from "./process.ts";

let model: GuardModel;
let guard: Guard;
let server: RunningServer;
const failures: unknown[] = [];

const listening = (served: Guard, options: Partial<ServerOptions> = {}): Promise<RunningServer> =>
  startServer(guardSite(served), {
    host: "127.0.0.1",
    port: 0,
    report: (error) => failures.push(error),
    ...options,
  });

const post = (body: unknown, { url }: Pick<RunningServer, "url"> = server, headers: Record<string, string> = {}) =>
  fetch(`${url}/moderate`, {
    method: "POST",
    headers: { "content-type": "application/json", ...headers },
    body: typeof body === "string" ? body : JSON.stringify(body),
  });

beforeAll(async () => {
  const start = guardModel(1);
  const prompts = conversations(40, 3).map((example) => codec.example(example));
  const weights = await distillGuard(start, null, prompts, { steps: 60, rate: 5e-3, seed: 1 });
  model = { config: start.config, weights };
  guard = await Guard.open(model, policy, tokenizer, { threads: 1 });
  server = await listening(guard);
}, 120_000);
afterAll(async () => {
  await server.close();
  await guard.dispose();
  expect(failures).toEqual([]);
});

const user = (text: string) => ({ role: "user", text }) as const;

describe("a guard over HTTP", { timeout: 60_000 }, () => {
  it("judges what it is asked about as it does itself, many at once too", async () => {
    await using alone = await Guard.open(model, policy, tokenizer, { threads: 1 });
    const asked = conversations(8, 4).map(({ turns, judge }) => ({ turns, judge }));
    const answers = await Promise.all(asked.map(async (body) => await (await post(body)).json()));
    for (const [i, { turns, judge }] of asked.entries()) {
      const { ttftMs: _, score, ...verdict } = await alone.moderate(turns, judge);
      expect(answers[i]).toMatchObject(verdict);
      expect(answers[i].score).toBeCloseTo(score, 5);
      expect(Object.keys(answers[i]).sort()).toEqual(["categories", "safe", "score", "ttftMs"]);
    }
    expect(new Set(answers.map(({ safe }) => safe))).toEqual(new Set([true, false]));
  });

  it("judges the last turn, whoever's it is, where it is not told whose", async () => {
    const turns = [user("Look at the cake."), { role: "agent", text: "Look at the hill." }];
    const [untold, told] = await Promise.all([{ turns }, { turns, judge: "agent" }].map((body) => post(body)));
    expect(untold!.status).toBe(200);
    const { safe, categories } = await told!.json();
    expect(await untold!.json()).toMatchObject({ safe, categories });
  });

  it("tells its policy, and that it is there", async () => {
    expect(await (await fetch(`${server.url}/policy`)).json()).toEqual(policy);
    expect(await (await fetch(`${server.url}/health`)).json()).toEqual({ status: "ok" });
  });

  it.each([
    ["no turns", {}, 400, '"turns" lists { "role": "user" or "agent", "text" }'],
    ["no conversation", { turns: [] }, 400, "an empty conversation cannot be judged"],
    ["a turn without text", { turns: [{ role: "user" }] }, 400, '"turns" lists'],
    ["an unknown role", { turns: [{ role: "system", text: "a" }] }, 400, '"turns" lists'],
    ["an unknown judge", { turns: [user("a")], judge: "model" }, 400, '"judge" is "user" or "agent", not "model"'],
    [
      "another's turn",
      { turns: [user("a")], judge: "agent" },
      400,
      "the last turn is the user's, so that the agent's cannot be judged",
    ],
    ["a misspelt parameter", { turn: [user("a")] }, 400, 'unknown parameter turn (did you mean "turns"?)'],
    ["a turn that is too long", { turns: [user("hill ".repeat(500))] }, 400, "shorten the turn or the policy"],
    ["no JSON", "{", 400, "the request"],
    ["a list", "[]", 400, "the request holds no JSON object"],
    ["too much", { turns: [user("x".repeat(2 ** 20))] }, 413, "the request has more than 1048576 bytes"],
  ])("refuses %s", async (_, body, status, message) => {
    const answer = await post(body);
    expect(answer.status).toBe(status);
    const { error } = await answer.json();
    expect(error.message).toContain(message);
    expect(error.type).toBe("invalid_request_error");
  });

  it("refuses other content, methods, paths and names", async () => {
    expect((await post("{}", server, { "content-type": "text/plain" })).status).toBe(415);
    const got = await fetch(`${server.url}/moderate`);
    expect([got.status, got.headers.get("allow")]).toEqual([405, "POST"]);
    const nowhere = await fetch(`${server.url}/v1/models`);
    expect([nowhere.status, (await nowhere.json()).error.message]).toEqual([404, "there is nothing at /v1/models"]);
  });

  it("asks for the key where there is one", async () => {
    const locked = await listening(guard, { apiKey: "secret" });
    expect((await post({ turns: [user("a")] }, locked)).status).toBe(401);
    const answer = await post({ turns: [user("Look at the hill.")] }, locked, { authorization: "Bearer secret" });
    expect(answer.status).toBe(200);
    await locked.close();
  });

  it("fails where the model gives no verdict, and does not call that safe", async () => {
    await using babbler = await Guard.open(guardModel(9), policy, tokenizer, { threads: 1 });
    const babbling = await listening(babbler);
    const answer = await post({ turns: [user("cake")] }, babbling);
    expect(answer.status).toBe(500);
    const body = await answer.json();
    expect(body.error).toMatchObject({ type: "server_error", code: "no_verdict" });
    expect(body.error.message).toMatch(/a verdict is "safe", or "unsafe"/);
    await babbling.close();
  });
});

describe("pare guard serve", { timeout: 120_000 }, () => {
  it("says where it is, answers, and ends by SIGTERM", async () => {
    const folder = await mkdtemp(join(tmpdir(), "pare-guard-serve-"));
    await saveGuard(join(folder, "small"), { json, weights: model.weights, tokenizer, policy });
    const { child, ended } = start("guard", "serve", join(folder, "small"), "--port", "0", "--json");
    const url = await new Promise<string>((resolve) => {
      let said = "";
      child.stderr.on("data", (data) => {
        const [, found] = /serving small at (\S+)\/moderate\n/.exec((said += data)) ?? [];
        if (found !== undefined) resolve(found);
      });
    });
    const turns = [user("Look at the river.")];
    const { ttftMs: _, score, ...verdict } = await guard.moderate(turns, "user");
    const answer = await (await post({ turns, judge: "user" }, { url })).json();
    expect(answer).toMatchObject(verdict);
    expect(answer.score).toBeCloseTo(score, 4);
    child.kill("SIGTERM");
    const { code, out } = await ended;
    expect(code).toBe(0);
    expect(JSON.parse(out)).toEqual({ model: "small", url, requests: 1 });
    await rm(folder, { recursive: true });
  });
});
