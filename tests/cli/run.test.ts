import { mkdtemp, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { PassThrough } from "node:stream";
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { type ChatOptions, chat } from "../../src/cli/chat.ts";
import { openTextModel, type TextModel } from "../../src/cli/model.ts";
import { complete } from "../../src/generate/index.ts";
import { saveModel } from "../../src/models/node.ts";
import { tinyModel } from "../generate/models.ts";
import { tinyShape, tinyTextModel } from "./models.ts";
import { type Ended, pare, start } from "./process.ts";

/** Starting a process and compiling takes long on a machine that is busy. */
const patience = 300_000;

let folder: string;
let model: TextModel;
beforeAll(async () => {
  folder = await mkdtemp(join(tmpdir(), "pare-run-"));
  model = await tinyTextModel({ chats: true });
  const { weights } = tinyModel(tinyShape);
  const json = { model_type: "llama", architectures: ["LlamaForCausalLM"], ...tinyShape };
  await saveModel(join(folder, "chatty"), { json, weights, tokenizer: model.tokenizer });
  const advice = { temperature: 0, top_k: 5, eos_token_id: [4095, 4094] };
  await writeFile(join(folder, "chatty", "generation_config.json"), JSON.stringify(advice));
}, patience);
afterAll(async () => {
  await model[Symbol.asyncDispose]();
  await rm(folder, { recursive: true });
});

function run(words: readonly string[], input: string | Uint8Array = ""): Promise<Ended> {
  const { child, ended } = start("run", ...words);
  child.stdin.end(input);
  return ended;
}

describe("pare run", { timeout: patience }, () => {
  it("tells a story when it is told nothing", async () => {
    const { code, out, err } = await run(["-n", "5", "--seed", "1"]);
    expect(code).toBe(0);
    expect(out).toMatch(/^Once upon a time.+\n$/s);
    expect(err).toMatch(/^\[5 tokens, [\d.]+ tokens\/s, first after [\d.]+ s, seed 1\]\n$/);
  });

  it("gives under --json what generate gives, from a prompt on standard input", async () => {
    await using embedded = await openTextModel(undefined, { device: "cpu", threads: 1 });
    const options = { temperature: 0.7, topP: 0.95, topK: 40, repetitionPenalty: 1.1, seed: 5, maxTokens: 8 };
    const expected = await complete(embedded.session, embedded.tokenizer, "The dog", options);
    const flags = "--temperature 0.7 --top-k 40 --repetition-penalty 1.1 --seed 5 -n 8 --threads 1 --json";
    const { code, out } = await run(["--prompt", "-", ...flags.split(" ")], "The dog\n");
    expect(code).toBe(0);
    const given = JSON.parse(out);
    expect(given).toMatchObject({ model: "storybook", device: "cpu", seed: 5, prompt: "The dog", ...expected });
    expect(given.secondsToFirstToken).toBeGreaterThan(0);
    expect(given.tokensPerSecond).toBeGreaterThan(0);
  });

  it("puts a prompt into the model's template unless told not to, and draws as its authors advise", async () => {
    const options = { temperature: 0, topK: 5, maxTokens: 6, eosIds: [4095, 4094] };
    const place = join(folder, "chatty");
    const expected = await complete(model.session, model.tokenizer, "[user] Hi\n[assistant] ", options);
    expect((await run([place, "-p", "Hi", "-n", "6"])).out).toBe(`${expected.text}\n`);
    const raw = await complete(model.session, model.tokenizer, "Hi", options);
    expect((await run([place, "-p", "Hi", "-n", "6", "--raw"])).out).toBe(`${raw.text}\n`);
  });

  it("keeps the text so far when Ctrl-C ends it", async () => {
    const { child, ended } = start(
      "run",
      join(folder, "chatty"),
      "--prompt",
      "Hi",
      "--temperature",
      "1",
      "--seed",
      "1",
    );
    child.stdout.once("data", () => child.kill("SIGINT"));
    const { code, out, err } = await ended;
    expect(code).toBe(130);
    expect(out.length).toBeGreaterThan(1);
    expect(err).toMatch(/\[\d+ tokens?, .*seed 1\]\n$/);
  });

  it("refuses what is not text on standard input", async () => {
    const { code, out, err } = await run(["--prompt", "-"], Uint8Array.of(72, 255, 254));
    expect({ code, out, err }).toEqual({ code: 2, out: "", err: "pare: standard input: it is not UTF-8 text\n" });
  });

  it.each([
    [["--prompt", ""], "the prompt is empty; a model needs something to begin with"],
    [["./no-such-model"], "there is no prompt; give one with --prompt"],
    [["./no-such-model", "--prompt", "x"], "there is no folder ./no-such-model"],
    [["no-such-model.gguf", "--prompt", "x"], "there is no file no-such-model.gguf"],
    [["--prompt", "x ".repeat(600)], "tokens, but the model takes 512; shorten it"],
    [["--prompt", "x", "--top-p", "0"], "topP must be above 0 and at most 1, not 0"],
    [["--max-tokens", "0"], '--max-tokens is a whole number >= 1, not "0"'],
  ])("refuses %#", async (words, message) => {
    const { code, out, err } = await pare("run", ...words);
    expect({ code, out }).toEqual({ code: 2, out: "" });
    expect(err).toContain(message);
  });
});

describe("chat", { timeout: patience }, () => {
  const settings = { temperature: 0, maxTokens: 4, seed: 1 };

  /** Types each entry when the prompt has come again, and gives what was said and noted. */
  async function talk(entries: readonly string[], options: Partial<ChatOptions> & { plain: boolean }) {
    const input = new PassThrough();
    const output = new PassThrough();
    const notes: string[] = [];
    let [said, from] = ["", 0];
    output.on("data", (data) => {
      said += data;
      if (!said.includes("> ", from) || entries.length === 0) return;
      from = said.length;
      const [next, ...later] = entries;
      entries = later;
      input.write(next);
    });
    await chat(model, { ...settings, ...options }, { input, output, note: (line) => notes.push(line) });
    return { said, notes };
  }

  const after = async (prompt: string) =>
    (await complete(model.session, model.tokenizer, prompt, { temperature: 0, maxTokens: 4, eosIds: [] })).text;

  it("keeps to the template and remembers, until it is reset", async () => {
    const first = await after("[user] Hi\n[assistant] ");
    const second = await after(`[user] Hi\n[assistant] ${first}\n[user] More\n[assistant] `);
    const { said } = await talk(["Hi\r", "More\r", "/reset\r", "Hi\r", "/exit\r"], { plain: false });
    const answers = [first, second, first].map((text) => text.replace(/(?![\n\t])\p{Cc}/gu, "\uFFFD"));
    let at = 0;
    for (const text of answers) {
      at = said.indexOf(text, at);
      expect(at).toBeGreaterThan(-1);
      at += text.length;
    }
  });

  it("goes on with a growing text where there is no template", async () => {
    const first = await after("Once");
    const joined = `Once${first}${/\S$/.test(first) ? " " : ""}Then`;
    const second = await after(joined);
    const { said, notes } = await talk(["Then\r", "/reset\r", "\r", "/what now\r", "/exit\r"], {
      plain: true,
      opening: "Once",
    });
    expect(said).toContain(`Once${first}\n`);
    expect(said).toContain(`${second}\n`);
    expect(notes.at(-1)).toMatch(/^there is no \/what; \/reset forgets/);
  });

  it("stops an answer at Ctrl-C and ends at the second", async () => {
    const input = new PassThrough();
    const output = new PassThrough();
    const notes: string[] = [];
    let presses = 0;
    output.on("data", (data) => {
      const answering = presses === 0 && String(data) !== "Once";
      const prompted = presses === 1 && notes.length === 2;
      if (!answering && !prompted) return;
      presses++;
      input.write("\u0003");
    });
    const options = { seed: 1, plain: true, opening: "Once" };
    await chat(model, options, { input, output, note: (line) => notes.push(line) });
    expect(presses).toBe(2);
    expect(notes[1]).toMatch(/^\[\d+ tokens?/);
  });

  it("says when the conversation has become too long, and goes on", async () => {
    const { notes } = await talk([`${"fox ".repeat(6100)}\r`, "Hi\r", "/exit\r"], { plain: false });
    expect(notes[1]).toMatch(/^the prompt has \d+ tokens, but the model takes 6000; shorten it; \/reset begins anew$/);
    expect(notes[2]).toMatch(/^\[4 tokens/);
  });
});
