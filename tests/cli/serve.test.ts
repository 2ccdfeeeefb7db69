import { once } from "node:events";
import { connect, type Socket } from "node:net";
import { setTimeout as sleep } from "node:timers/promises";
import OpenAI, { APIError } from "openai";
import { afterAll, afterEach, beforeAll, describe, expect, it } from "vitest";
import type { TextModel } from "../../src/cli/model.ts";
import { type RunningServer, type ServerOptions, startServer } from "../../src/cli/server/server.ts";
import { textSite } from "../../src/cli/server/text-site.ts";
import { complete, DecoderSession, type GenerateOptions } from "../../src/generate/index.ts";
import { tinyModel } from "../generate/models.ts";
import { tinyShape, tinyTextModel } from "./models.ts";
import { start } from "./process.ts";

let model: TextModel;
/** Generates what the server should, on a session of its own. */
let reference: DecoderSession;
beforeAll(async () => {
  model = await tinyTextModel({ chats: true });
  const { config, weights } = tinyModel(tinyShape);
  reference = await DecoderSession.open(config, weights, { threads: 1 });
});
afterAll(async () => {
  await model[Symbol.asyncDispose]();
  await reference.dispose();
});

const running: RunningServer[] = [];
const failures: unknown[] = [];
afterEach(async () => {
  await Promise.all(running.splice(0).map((server) => server.close()));
  expect(failures.splice(0)).toEqual([]);
});

async function serve(options: Partial<ServerOptions> = {}, served = model) {
  const report = (error: unknown) => failures.push(error);
  const server = await startServer(textSite(served), { host: "127.0.0.1", port: 0, report, ...options });
  running.push(server);
  const apiKey = options.apiKey ?? "any";
  return { server, openai: new OpenAI({ baseURL: `${server.url}/v1`, apiKey, maxRetries: 0 }) };
}

const alone = (prompt: string | readonly number[], options: GenerateOptions) =>
  complete(reference, model.tokenizer, prompt, { eosIds: [], ...options });

const post = (
  server: Pick<RunningServer, "url">,
  body: unknown,
  headers: Record<string, string> = {},
  path = "/v1/completions",
) =>
  fetch(server.url + path, {
    method: "POST",
    headers: { "content-type": "application/json", ...headers },
    body: typeof body === "string" ? body : JSON.stringify(body),
  });

async function errorOf(work: Promise<unknown>): Promise<{ status: unknown; error: Record<string, unknown> }> {
  const error = await work.then(
    () => undefined,
    (thrown: unknown) => thrown,
  );
  expect(error).toBeInstanceOf(APIError);
  const { status, error: body } = error as APIError;
  return { status, error: body as Record<string, unknown> };
}

const settings = { temperature: 0.9, seed: 11, max_tokens: 12, top_p: 0.9 };
const same = { temperature: 0.9, seed: 11, maxTokens: 12, topP: 0.9 };

describe("completions", () => {
  it("give the text that generate gives, with usage", async () => {
    const { openai } = await serve();
    const expected = await alone("The old fox", same);
    const given = await openai.completions.create({ model: "tiny", prompt: "The old fox", ...settings });
    expect(given).toMatchObject({
      object: "text_completion",
      model: "tiny",
      choices: [{ index: 0, text: expected.text, logprobs: null, finish_reason: "length" }],
      usage: {
        prompt_tokens: expected.usage.promptTokens,
        completion_tokens: 12,
        total_tokens: expected.usage.promptTokens + 12,
      },
    });
    const ids = model.tokenizer.encode("The old fox");
    const again = await openai.completions.create({ model: "tiny", prompt: ids, ...settings });
    expect(again.choices[0]!.text).toBe(expected.text);
  });

  it("stream the same text, and usage at the end where asked for", async () => {
    const { openai } = await serve();
    const expected = await alone("The old fox", same);
    const request = { model: "tiny", prompt: "The old fox", ...settings, stream: true } as const;
    const chunks = [];
    for await (const chunk of await openai.completions.create({ ...request, stream_options: { include_usage: true } }))
      chunks.push(chunk);
    expect(chunks.map(({ choices }) => choices[0]?.text ?? "").join("")).toBe(expected.text);
    expect(chunks.at(-2)!.choices[0]!.finish_reason).toBe("length");
    expect(chunks.at(-1)).toMatchObject({ choices: [], usage: { completion_tokens: 12 } });
    expect(new Set(chunks.map(({ id }) => id)).size).toBe(1);
    for await (const chunk of await openai.completions.create(request)) expect(chunk.usage).toBeUndefined();
  });

  it("answer several prompts several times, each answer from a seed of its own", async () => {
    const { openai } = await serve();
    const texts = [];
    for (const prompt of ["One", "Two"])
      for (const seed of [11, 12]) texts.push(prompt + (await alone(prompt, { ...same, seed })).text);
    const request = { model: "tiny", prompt: ["One", "Two"], n: 2, echo: true, ...settings };
    const given = await openai.completions.create(request);
    expect(given.choices.map(({ text }) => text)).toEqual(texts);
    expect(given.usage!.completion_tokens).toBe(48);
    const streamed = ["", "", "", ""];
    for await (const { choices } of await openai.completions.create({ ...request, stream: true }))
      streamed[choices[0]!.index] += choices[0]!.text;
    expect(streamed).toEqual(texts);
  });

  it("give log-probabilities, whole and streamed", async () => {
    const { openai } = await serve();
    const expected = await alone("The old fox", { ...same, logprobs: true });
    const request = { model: "tiny", prompt: "The old fox", ...settings, logprobs: 2 };
    const { choices } = await openai.completions.create(request);
    const { tokens, token_logprobs, top_logprobs, text_offset } = choices[0]!.logprobs!;
    expect(tokens).toHaveLength(12);
    for (const [i, logprob] of token_logprobs!.entries()) expect(logprob).toBeCloseTo(expected.logprobs![i]!, 4);
    for (const [i, rivals] of top_logprobs!.entries()) {
      expect(Object.keys(rivals)).toHaveLength(2);
      expect(Math.max(...Object.values(rivals))).toBeGreaterThanOrEqual(token_logprobs![i]! - 1e-4);
    }
    expect(text_offset!.slice(0, 2)).toEqual([0, tokens![0]!.length]);
    const streamed = [];
    for await (const chunk of await openai.completions.create({ ...request, stream: true }))
      streamed.push(...(chunk.choices[0]!.logprobs?.text_offset ?? []));
    expect(streamed).toEqual(text_offset);
  });

  it("end before a stop text, and at an end token", async () => {
    const { text, tokens } = await alone("The old fox", same);
    const stop = text.slice(6, 9);
    const { openai } = await serve();
    const request = { model: "tiny", prompt: "The old fox", ...settings };
    const stopped = await openai.completions.create({ ...request, stop: ["never to come", stop] });
    expect(stopped.choices[0]).toMatchObject({ text: text.slice(0, text.indexOf(stop)), finish_reason: "stop" });
    const ending = await serve({}, { ...model, eosIds: [tokens[4]!] });
    const ended = await ending.openai.completions.create({ ...request, logprobs: 0 });
    expect(ended.choices[0]!.finish_reason).toBe("stop");
    expect(ended.choices[0]!.logprobs!.tokens).toHaveLength(tokens.indexOf(tokens[4]!));
  });

  it("heed penalties, and what the model's authors advise", async () => {
    const { openai } = await serve({}, { ...model, advice: { temperature: 0 } });
    const options = { temperature: 0, maxTokens: 12 };
    const penalties = { presencePenalty: 1.5, frequencyPenalty: 0.5, repetitionPenalty: 1.2, topK: 3, minP: 0.1 };
    const request = { model: "tiny", prompt: "So", max_tokens: 12 };
    const plain = await openai.completions.create(request);
    expect(plain.choices[0]!.text).toBe((await alone("So", options)).text);
    const extensions = { repetition_penalty: 1.2, top_k: 3, min_p: 0.1 };
    const penalized = await openai.completions.create({
      ...request,
      presence_penalty: 1.5,
      frequency_penalty: 0.5,
      ...extensions,
    });
    expect(penalized.choices[0]!.text).toBe((await alone("So", { ...options, ...penalties })).text);
  });
});

describe("chat", () => {
  const messages = [
    { role: "developer", content: "Be brief." },
    {
      role: "user",
      content: [
        { type: "text", text: "Good " },
        { type: "text", text: "day" },
      ],
    },
  ] as OpenAI.ChatCompletionMessageParam[];
  const prompt = "[system] Be brief.\n[user] Good day\n[assistant] ";

  it("answers by the model's template, whole and streamed", async () => {
    const { openai } = await serve();
    const expected = await alone(prompt, same);
    const given = await openai.chat.completions.create({ model: "tiny", messages, ...settings });
    expect(given).toMatchObject({
      object: "chat.completion",
      choices: [{ message: { role: "assistant", content: expected.text }, finish_reason: "length" }],
      usage: { prompt_tokens: expected.usage.promptTokens, completion_tokens: 12 },
    });
    const { max_tokens: max_completion_tokens, ...rest } = settings;
    const stream = openai.chat.completions.stream({ model: "tiny", messages, ...rest, max_completion_tokens });
    expect(await stream.finalContent()).toBe(expected.text);
    expect((await stream.finalMessage()).role).toBe("assistant");
  });

  it("gives log-probabilities with rivals", async () => {
    const { openai } = await serve();
    const expected = await alone(prompt, { ...same, logprobs: true });
    const request = { model: "tiny", messages, ...settings, logprobs: true, top_logprobs: 3 };
    const { choices } = await openai.chat.completions.create(request);
    const content = choices[0]!.logprobs!.content!;
    expect(content).toHaveLength(12);
    for (const [i, { token, logprob, bytes, top_logprobs }] of content.entries()) {
      expect(logprob).toBeCloseTo(expected.logprobs![i]!, 4);
      expect(top_logprobs).toHaveLength(3);
      if (bytes) expect(Buffer.from(bytes).toString()).toBe(token);
    }
  });

  it("needs a template", async () => {
    await using plain = await tinyTextModel();
    const { openai } = await serve({}, plain);
    expect(await errorOf(openai.chat.completions.create({ model: "tiny", messages }))).toEqual({
      status: 400,
      error: {
        message: "tiny has no chat template, so it was not made for conversations; use /v1/completions",
        type: "invalid_request_error",
        param: "messages",
        code: "no_chat_template",
      },
    });
  });

  it.each([
    [{ messages: [] }, "messages must be a list of at least one message"],
    [{ messages: ["hi"] }, 'messages[0] must be an object, not "hi"'],
    [
      { messages: [{ role: "tool", content: "x" }] },
      'messages[0].role must be one of system, developer, user, assistant; it is "tool"',
    ],
    [{ messages: [{ role: "user" }] }, "messages[0].content must be text or a list of parts"],
    [
      { messages: [{ role: "user", content: [{ type: "image_url", image_url: { url: "x" } }] }] },
      'messages[0].content[0] must be a part of type "text", not "image_url"',
    ],
    [{ tools: [{ type: "function" }] }, 'tools is not supported here: [{"type":"function"}]'],
    [{ response_format: { type: "json_object" } }, 'response_format is not supported here: {"type":"json_object"}'],
    [{ top_logprobs: 2 }, "top_logprobs goes with logprobs only"],
    [{ max_tokens: 2, max_completion_tokens: 3 }, "max_tokens 2 and max_completion_tokens 3 contradict each other"],
  ])("refuses %j", async (changes, message) => {
    const { server } = await serve();
    const answer = await post(server, { messages, ...changes }, {}, "/v1/chat/completions");
    expect(answer.status).toBe(400);
    expect(((await answer.json()) as { error: { message: string } }).error.message).toBe(message);
  });
});

describe("requests that cannot be answered", () => {
  it.each([
    [{}, 400, "prompt", "the prompt is missing"],
    [{ prompt: "" }, 400, "prompt", "prompt is empty; a model needs at least one token to begin with"],
    [{ prompt: [1, 5000] }, 400, "prompt", "a prompt must be text or tokens from 0 to 4095, not [1,5000]"],
    [{ prompt: [["a"]] }, 400, "prompt", 'a prompt must be text or tokens from 0 to 4095, not ["a"]'],
    [{ prompt: "x", model: "gpt-4" }, 404, "model", 'there is no model "gpt-4" here; this server has "tiny"'],
    [{ prompt: "x", temperature: 3 }, 400, "temperature", "temperature must be a number from 0 to 2, not 3"],
    [{ prompt: "x", seed: 1.5 }, 400, "seed", "seed must be a whole number, not 1.5"],
    [{ prompt: "x", max_tokens: 0 }, 400, "max_tokens", "max_tokens must be a whole number from 1, not 0"],
    [{ prompt: "x", stream: "yes" }, 400, "stream", 'stream must be true or false, not "yes"'],
    [{ prompt: "x", stop: [""] }, 400, "stop", 'stop must be a text or up to 16 of them, none empty, not [""]'],
    [{ prompt: "x", n: 65 }, 400, "n", "n must be a whole number from 1 to 64, not 65"],
    [{ prompt: ["x", "y"], n: 33 }, 400, "n", "2 prompts with 33 answers each are more than 64 answers"],
    [{ prompt: "x", stream_options: {} }, 400, "stream_options", "stream_options goes with stream only"],
    [{ prompt: "x", best_of: 3 }, 400, "best_of", "best_of is not supported here: 3"],
    [{ prompt: "x", logit_bias: { 5: 1 } }, 400, "logit_bias", 'logit_bias is not supported here: {"5":1}'],
    [{ prompt: "x", echo: true, logprobs: 1 }, 400, "echo", "echo together with logprobs is not supported here"],
    [{ prompt: "x", temprature: 1 }, 400, "temprature", 'unknown parameter temprature (did you mean "temperature"?)'],
    ["{", 400, null, /^the request: it is not JSON: /],
    ["[1]", 400, null, "the request holds no JSON object"],
    ['{"prompt":"x","prompt":"y"}', 400, null, 'the request: "prompt" is named twice'],
  ])("%j", async (body, status, param, message) => {
    const { server } = await serve();
    const answer = await post(server, body);
    expect(answer.status).toBe(status);
    const { error } = (await answer.json()) as { error: Record<string, unknown> };
    expect(error).toMatchObject({ type: "invalid_request_error", param });
    expect(error["message"]).toMatch(message);
  });

  it("are longer than the model's context", async () => {
    const { openai } = await serve();
    const long = openai.completions.create({ model: "tiny", prompt: new Array(6001).fill(5) });
    expect(await errorOf(long)).toEqual({
      status: 400,
      error: {
        message: "prompt has 6001 tokens, but the model takes 6000; shorten it",
        type: "invalid_request_error",
        param: "prompt",
        code: "context_length_exceeded",
      },
    });
  });

  it("go to another place, by another method, or bring something else than JSON", async () => {
    const { server } = await serve();
    const status = async (path: string, init?: RequestInit) => (await fetch(server.url + path, init)).status;
    expect(await status("/v1/nothing")).toBe(404);
    expect(await status("/v1/models/other")).toBe(404);
    expect(await status("/v1/models/tiny")).toBe(200);
    const wrong = await fetch(`${server.url}/v1/completions`);
    expect([wrong.status, wrong.headers.get("allow")]).toEqual([405, "POST"]);
    expect((await post(server, "prompt=x", { "content-type": "application/x-www-form-urlencoded" })).status).toBe(415);
    expect((await post(server, "{}", { "content-encoding": "gzip" })).status).toBe(415);
    expect((await post(server, { prompt: "x", logprobs: null, user: "me", max_tokens: 1 })).status).toBe(200);
  });

  it("come without the key, or under a foreign name", async () => {
    const { server, openai } = await serve({ apiKey: "secret" });
    expect((await openai.models.list()).data.map(({ id }) => id)).toEqual(["tiny"]);
    expect((await fetch(`${server.url}/health`)).status).toBe(200);
    expect((await fetch(`${server.url}/v1/models`)).status).toBe(401);
    const other = new OpenAI({ baseURL: `${server.url}/v1`, apiKey: "secreT", maxRetries: 0 });
    expect(await errorOf(other.models.list())).toMatchObject({ status: 401, error: { code: "invalid_api_key" } });
    expect(await raw(server, "GET /health HTTP/1.1\r\nhost: evil.example:80\r\nconnection: close\r\n\r\n")).toMatch(
      /^HTTP\/1.1 403 /,
    );
  });

  it("come from web pages, which only an allowed origin's may", async () => {
    const closed = await serve();
    const asks = { method: "OPTIONS", headers: { origin: "https://a.example" } };
    expect((await fetch(`${closed.server.url}/v1/models`, asks)).status).toBe(405);
    expect((await fetch(`${closed.server.url}/v1/models`)).headers.get("access-control-allow-origin")).toBeNull();
    const { server } = await serve({ corsOrigin: "https://a.example", apiKey: "secret" });
    expect((await fetch(`${server.url}/v1/completions`, asks)).status).toBe(204);
    const refused = await post(server, {});
    expect(refused.status).toBe(401);
    expect(refused.headers.get("access-control-allow-origin")).toBe("https://a.example");
  });
});

describe("several clients", () => {
  const long = { model: "tiny", prompt: "The old fox", max_tokens: 5000, stream: true } as const;

  it("each get the text that they would get alone", async () => {
    const { openai } = await serve();
    const seeds = [1, 2, 3, 4, 5];
    const given = await Promise.all(
      seeds.map((seed) => openai.completions.create({ model: "tiny", prompt: `Fox ${seed}`, ...settings, seed })),
    );
    for (const [i, seed] of seeds.entries())
      expect(given[i]!.choices[0]!.text).toBe((await alone(`Fox ${seed}`, { ...same, seed })).text);
  });

  it("are let in after one that leaves in the middle, or while it waits", async () => {
    const { openai } = await serve();
    const first = await openai.completions.create(long);
    for await (const _ of first) break;
    const leaving = new AbortController();
    const busy = await openai.completions.create(long);
    const waiting = openai.completions.create({ ...long, stream: false }, { signal: leaving.signal });
    await sleep(50);
    leaving.abort();
    await expect(waiting).rejects.toThrow("Request was aborted.");
    const next = openai.completions.create({ model: "tiny", prompt: "The old fox", ...settings });
    busy.controller.abort();
    expect((await next).choices[0]!.text).toBe((await alone("The old fox", same)).text);
  });

  it("are told to come again when too many wait", async () => {
    const { server, openai } = await serve({ limits: { waiting: 1 } });
    const busy = await openai.completions.create(long);
    const short = { prompt: "x", max_tokens: 1 };
    const waiting = post(server, short);
    const refused = await untilRefused(server, short);
    expect(refused.headers.get("retry-after")).toBe("1");
    expect(await refused.json()).toMatchObject({ error: { type: "rate_limit_error", code: "queue_full" } });
    busy.controller.abort();
    expect((await waiting).status).toBe(200);
  });

  it("are not kept from it by one that does not read", async () => {
    const { server, openai } = await serve({ limits: { backlogBytes: 10_000, stallTime: 200 } });
    const socket = await rawSocket(server);
    const body = JSON.stringify({ ...long, logprobs: 20 });
    socket.write(request(body));
    socket.pause();
    await sleep(100);
    const next = await openai.completions.create({ model: "tiny", prompt: "The old fox", ...settings });
    expect(next.choices[0]!.text).toBe((await alone("The old fox", same)).text);
    expect(await rest(socket)).not.toContain("[DONE]");
  }, 300_000);
});

describe("clients that hang or flood", () => {
  const limits = { headersTime: 300, requestTime: 600, stallTime: 300, bodyBytes: 2000 };

  it.each([
    ["half of the headers", "POST /v1/completions HTTP/1.1\r\nhost: loc", 408],
    ["half of the body", request('{"prompt":"x"}').slice(0, -5), 408],
    ["no HTTP", "what is this\r\n\r\n", 400],
    ["endless headers", `GET /health HTTP/1.1\r\nhost: localhost\r\nx: ${"y".repeat(20_000)}`, 431],
    ["a body announced too long", request("{}").replace("content-length: 2", "content-length: 2001"), 413],
  ])("%s", async (_, bytes, status) => {
    const { server } = await serve({ limits });
    expect(await raw(server, bytes)).toMatch(new RegExp(`^HTTP/1.1 ${status} `));
    expect((await fetch(`${server.url}/health`)).status).toBe(200);
  });

  it("a body without an end", async () => {
    const { server } = await serve({ limits });
    const socket = await rawSocket(server);
    socket.write(request("").replace("content-length: 0", "transfer-encoding: chunked"));
    const flood = setInterval(() => socket.writable && socket.write(`3e8\r\n${"x".repeat(1000)}\r\n`), 1);
    socket.on("error", () => clearInterval(flood));
    const answer = await rest(socket);
    clearInterval(flood);
    expect(answer).toMatch(/^HTTP\/1.1 413 [\s\S]*the request has more than 2000 bytes/);
  });
});

describe("the end", () => {
  const request = { model: "tiny", prompt: "The old fox", stream: true } as const;

  it("waits for answers under way, and takes no new ones", async () => {
    const { server, openai } = await serve();
    const stream = await openai.completions.create({ ...request, max_tokens: 200, seed: 1 });
    const closed = server.close();
    let text = "";
    for await (const { choices } of stream) text += choices[0]!.text;
    expect(text).toBe((await alone("The old fox", { maxTokens: 200, seed: 1 })).text);
    await closed;
    await expect(fetch(`${server.url}/health`)).rejects.toThrow("fetch failed");
  });

  it("breaks off what takes too long, and says so", async () => {
    const { server, openai } = await serve({ limits: { graceTime: 100 } });
    const stream = await openai.completions.create({ ...request, max_tokens: 5000 });
    const waiting = post(server, { prompt: "x" });
    const read = (async () => {
      for await (const _ of stream);
    })();
    await sleep(100);
    const closed = server.close();
    await expect(read).rejects.toThrow("the server is shutting down");
    expect((await waiting).status).toBe(503);
    await closed;
  });

  it("is told when it cannot begin", async () => {
    const { server } = await serve();
    const port = Number(new URL(server.url).port);
    await expect(startServer(textSite(model), { host: "127.0.0.1", port, report: () => {} })).rejects.toThrow(
      `cannot listen on 127.0.0.1, port ${port}: something listens there already; --port 0 takes a free one`,
    );
  });
});

describe("pare serve", { timeout: 300_000 }, () => {
  it.each([
    ["SIGTERM", 0],
    ["SIGINT", 130],
  ] as const)("says where it is, serves the embedded model, and ends by %s with %d", async (signal, code) => {
    const { child, ended } = start("serve", "--port", "0", "--json", "--threads", "1");
    const url = await new Promise<string>((resolve) => {
      let said = "";
      child.stderr.on("data", (data) => {
        const [, found] = /serving storybook at (\S+)\/v1\n/.exec((said += data)) ?? [];
        if (found !== undefined) resolve(found);
      });
    });
    const given = await post({ url }, { prompt: "Once upon a time", max_tokens: 2 });
    expect(await given.json()).toMatchObject({ model: "storybook", usage: { completion_tokens: 2 } });
    child.kill(signal);
    const { out, ...rest } = await ended;
    expect(rest.code).toBe(code);
    expect(JSON.parse(out)).toEqual({ model: "storybook", url, requests: 1 });
  });
});

function request(body: string): string {
  const headers = `host: localhost\r\ncontent-type: application/json\r\ncontent-length: ${Buffer.byteLength(body)}`;
  return `POST /v1/completions HTTP/1.1\r\n${headers}\r\n\r\n${body}`;
}

async function rawSocket({ url }: RunningServer): Promise<Socket> {
  const socket = connect(Number(new URL(url).port), "127.0.0.1");
  await once(socket, "connect");
  return socket;
}

/** All that a socket still receives until its connection is closed, in whatever way. */
function rest(socket: Socket): Promise<string> {
  let text = "";
  socket.on("data", (data) => (text += data));
  socket.on("error", () => {});
  socket.resume();
  return new Promise((resolve) => (socket.closed ? resolve(text) : socket.on("close", () => resolve(text))));
}

/** What a server answers to these bytes until it closes the connection, as it must at some time. */
async function raw(server: RunningServer, bytes: string): Promise<string> {
  const socket = await rawSocket(server);
  socket.write(bytes);
  return rest(socket);
}

/** Asks until one is refused; those that wait keep their places. */
async function untilRefused(server: RunningServer, body: unknown): Promise<Response> {
  for (;;) {
    const answer = await Promise.race([post(server, body), sleep(500)]);
    if (answer instanceof Response && answer.status === 429) return answer;
  }
}
