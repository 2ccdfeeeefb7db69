import { mkdtemp, readdir, readFile, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import type { Outcome } from "../../src/cli/command.ts";
import { commands } from "../../src/cli/commands/index.ts";
import { dispatch } from "../../src/cli/dispatch.ts";
import { pendingTensors, Tokenizer } from "../../src/formats/index.ts";
import { openSafetensors, openSafetensorsIndex, saveSafetensorsFolder } from "../../src/formats/node.ts";
import { denseTensors, type Weights } from "../../src/models/index.ts";
import { openModel, saveModel } from "../../src/models/node.ts";
import { Dense } from "../../src/nn/index.ts";
import { HostTensor, Rng } from "../../src/tensor/index.ts";
import { tinyModel } from "../generate/models.ts";

const shape = {
  vocab_size: 23,
  hidden_size: 16,
  intermediate_size: 24,
  num_hidden_layers: 2,
  num_attention_heads: 4,
  num_key_value_heads: 2,
  max_position_embeddings: 40,
};
const json = { model_type: "llama", architectures: ["LlamaForCausalLM"], ...shape };

let folder: string;
const at = (name: string): string => join(folder, name);

/** A model near the tiny one. */
function neighbour(seed: number): Weights {
  const rng = new Rng(seed);
  const { weights } = tinyModel(shape);
  return Object.fromEntries(
    Array.from(denseTensors(weights), ([name, tensor]) => {
      const noise = rng.fork(name).normalTensor(tensor.shape, { std: 0.02 });
      const moved = HostTensor.from(
        tensor.toArray().map((v, i) => v + noise.at(i)),
        { shape: tensor.shape },
      );
      return [name, moved.shape.length === 2 ? new Dense(moved) : moved];
    }),
  );
}

async function pare(...words: string[]): Promise<{ code: number; out: string; err: string; signal: AbortController }> {
  let [out, err] = ["", ""];
  const signal = new AbortController();
  const code = await dispatch(words, commands, {
    out: (text) => (out += text),
    err: (text) => (err += text),
    interrupts: () => signal.signal,
    debug: false,
  });
  return { code, out, err, signal };
}

beforeAll(async () => {
  folder = await mkdtemp(join(tmpdir(), "pare-merge-"));
  for (const [seed, name] of ["base", "post", "next", "other"].entries())
    await saveModel(at(name), { json, weights: neighbour(seed) });
  await writeFile(join(at("post"), "generation_config.json"), '{"eos_token_id": 7}');
  await writeFile(join(at("post"), "chat_template.jinja"), "{{ messages[0].content }}");
});
afterAll(async () => await rm(folder, { recursive: true }));

const tensorsOf = async (name: string): Promise<Map<string, number[]>> => {
  await using model = await openModel(at(name));
  return new Map(Array.from(denseTensors(model.weights), ([tensor, values]) => [tensor, values.toArray()]));
};

describe("pare merge", { timeout: 120_000 }, () => {
  it("makes a model by ParamΔ that opens, with the post-trained one's template and settings", async () => {
    const words = ["--base", at("base"), "--post", at("post"), "--new-base", at("next"), "--out", at("merged")];
    const { code, out, err } = await pare("merge", ...words);
    expect(err).toBe("");
    expect(code).toBe(0);
    expect(out).toMatch(/cos\(new base, post\)/);
    expect(out).toMatch(/^model\.layers\.1 .*%/m);
    expect(out).toContain(`the merged model is in ${at("merged")}`);
    const [base, post, next, merged] = await Promise.all(["base", "post", "next", "merged"].map(tensorsOf));
    for (const [name, values] of merged!) {
      const expected = next!.get(name)!.map((v, i) => v + (post!.get(name)![i]! - base!.get(name)![i]!));
      expect(values).toEqual(expected.map(Math.fround));
    }
    expect(await readFile(join(at("merged"), "generation_config.json"), "utf8")).toBe('{"eos_token_id": 7}');
    expect(await readFile(join(at("merged"), "chat_template.jinja"), "utf8")).toBe("{{ messages[0].content }}");
    expect((await readdir(folder)).filter((name) => name.startsWith("."))).toEqual([]);
  });

  it.each([
    ["task", ["--base", "base", "post", "other", "--weights", "0.5,-1"]],
    ["ties", ["--base", "base", "post", "other", "--density", "0.3", "--scale", "1.5"]],
    ["dare", ["--base", "base", "post", "other", "--weights", "0.5,0.5", "--seed", "3"]],
    ["slerp", ["post", "other", "--weights", "0.3"]],
    ["linear", ["post", "other", "next", "--weights", "1,2,1"]],
  ])("merges by %s", async (method, words) => {
    const places = words.map((word) => (["base", "post", "other", "next"].includes(word) ? at(word) : word));
    const { code, out } = await pare("merge", "--method", method, ...places, "--out", at(method), "--json");
    expect(code).toBe(0);
    const report = JSON.parse(out);
    expect(report).toMatchObject({ out: at(method), warnings: [] });
    expect(report.overall.change).toBeGreaterThan(0);
    expect(report.tensors).toHaveLength((await tensorsOf(method)).size);
  });

  it("averages what it is told to average", async () => {
    const [a, b, mean] = await Promise.all(
      ["post", "other", "mean"].map(async (name, i) => {
        if (i === 2) await pare("merge", "--method", "linear", at("post"), at("other"), "--out", at("mean"));
        return await tensorsOf(name);
      }),
    );
    for (const [name, values] of mean!)
      for (const [i, value] of values.entries())
        expect(value).toBeCloseTo((a!.get(name)![i]! + b!.get(name)![i]!) / 2, 6);
  });

  it("writes the shards that the new base has", async () => {
    await saveModel(at("sharded"), { json, weights: neighbour(9) });
    const weights = pendingTensors(denseTensors(neighbour(9)));
    await saveSafetensorsFolder(at("sharded"), weights, { maxShardBytes: 4000 });
    const shards = async (name: string): Promise<string[]> =>
      (await readdir(at(name))).filter((file) => file.includes("safetensors")).sort();
    const words = ["--base", at("base"), "--post", at("base"), "--new-base", at("sharded"), "--out", at("resharded")];
    expect((await pare("merge", ...words)).code).toBe(0);
    expect((await shards("sharded")).length).toBeGreaterThan(3);
    expect(await shards("resharded")).toEqual(await shards("sharded"));
    // Nothing was added, so that every tensor is where it was, bit by bit.
    for (const shard of await shards("sharded")) {
      const index = shard.endsWith(".json");
      const open = index ? openSafetensorsIndex : openSafetensors;
      await using was = await open(join(at("sharded"), shard));
      await using is = await open(join(at("resharded"), shard));
      expect([...is.tensors.keys()]).toEqual([...was.tensors.keys()]);
      for (const name of was.tensors.keys())
        expect((await is.read(name)).rawBytes()).toEqual((await was.read(name)).rawBytes());
    }
  });

  it("matches vocabularies by token when it is told to", async () => {
    const letters = Array.from({ length: 25 }, (_, i) => String.fromCharCode(97 + i));
    const tokenizer = (tokens: readonly string[]): Tokenizer => {
      const vocab = Object.fromEntries(tokens.map((token, id) => [token, id]));
      return Tokenizer.fromFiles({ tokenizerJson: { model: { type: "BPE", vocab, merges: [] } } });
    };
    const old = tokenizer(letters.slice(0, 23));
    await saveModel(at("old"), { json, weights: neighbour(1), tokenizer: old });
    await saveModel(at("taught"), { json, weights: neighbour(2), tokenizer: old });
    const grown = { ...shape, vocab_size: 25 };
    const reversed = { json: { ...json, ...grown }, weights: tinyModel(grown).weights };
    await saveModel(at("grown"), { ...reversed, tokenizer: tokenizer([...letters].reverse()) });
    const words = ["merge", "--base", at("old"), "--post", at("taught"), "--new-base", at("grown"), "--out", at("fit")];
    expect((await pare(...words)).err).toContain("Only the vocabularies differ");
    expect((await pare(...words, "--vocab", "map")).code).toBe(0);
    const [base, post, next, merged] = await Promise.all(["old", "taught", "grown", "fit"].map(tensorsOf));
    for (const table of ["model.embed_tokens.weight", "lm_head.weight"])
      for (let row = 0; row < 25; row++)
        for (let i = 0; i < 16; i++) {
          const [from, to] = [(24 - row) * 16 + i, row * 16 + i];
          const delta = row < 2 ? 0 : post!.get(table)![from]! - base!.get(table)![from]!;
          expect(merged!.get(table)![to]).toBe(Math.fround(next!.get(table)![to]! + delta));
        }
  });

  it("leaves what exists alone unless it is told to replace it", async () => {
    const words = ["merge", "--method", "linear", at("post"), at("other"), "--out", at("taken")];
    expect((await pare(...words)).code).toBe(0);
    const before = await tensorsOf("taken");
    const refused = await pare(...words, "--weights", "1,0");
    expect(refused.code).toBe(2);
    expect(refused.err).toContain("taken exists; name another folder, or replace it with --force");
    expect(await tensorsOf("taken")).toEqual(before);
    expect((await pare(...words, "--weights", "1,0", "--force")).code).toBe(0);
    expect(await tensorsOf("taken")).toEqual(await tensorsOf("post"));
    expect((await readdir(folder)).filter((name) => name.startsWith("."))).toEqual([]);
  });

  it("leaves nothing behind when it is stopped, or fails on the way", async () => {
    const command = await commands["merge"]!.load();
    const controller = new AbortController();
    controller.abort();
    const options = { method: "linear", out: at("stopped"), force: false, ignoreConfig: false };
    const args = { models: [at("post"), at("other")] };
    const outcome: Outcome = await command.run({ args, options, json: false, signal: controller.signal } as never);
    expect(outcome).toEqual({ text: "stopped; nothing was written", json: { out: null } });

    const broken = {
      ...neighbour(1),
      "model.norm.weight": new HostTensor("f32", [16], new Float32Array(16).fill(NaN)),
    };
    await saveModel(at("broken"), { json, weights: broken });
    const { code, err } = await pare("merge", "--method", "linear", at("post"), at("broken"), "--out", at("stopped"));
    expect(code).toBe(2);
    expect(err).toContain('"model.norm.weight" holds NaN at entry 0; the checkpoint is damaged');
    expect((await readdir(folder)).filter((name) => name.startsWith(".") || name === "stopped")).toEqual([]);
  });

  it("goes on with the shards that are missing after it was stopped", async () => {
    await saveModel(at("split"), { json, weights: neighbour(9) });
    await saveSafetensorsFolder(at("split"), pendingTensors(denseTensors(neighbour(9))), { maxShardBytes: 4000 });
    const reason = new Error("stopped here");
    let left = 10;
    const signal = {
      reason,
      throwIfAborted: () => {
        if (left-- === 0) throw reason;
      },
    };
    const command = await commands["merge"]!.load();
    const options = { base: at("base"), post: at("post"), newBase: at("split"), out: at("finished"), force: false };
    const run = { args: { models: [] }, options: { method: "paramdelta", ...options, ignoreConfig: false } };
    const outcome: Outcome = await command.run({ ...run, json: false, signal } as never);
    const partial = `${at("finished")}.partial`;
    expect(outcome).toEqual({ text: `stopped; the same command goes on from ${partial}`, json: { out: null } });
    const kept = (await readdir(partial)).filter((name) => name.endsWith(".safetensors"));
    expect(kept.length).toBeGreaterThan(0);
    expect(await readdir(folder)).not.toContain("finished");

    const words = ["--base", at("base"), "--post", at("post"), "--new-base", at("split"), "--out"];
    const again = await pare("merge", ...words, at("finished"), "--json");
    const anew = await pare("merge", ...words, at("anew"), "--json");
    const told = (text: string) => ({ ...JSON.parse(text), out: null });
    expect(told(again.out)).toEqual(told(anew.out));
    expect(await tensorsOf("finished")).toEqual(await tensorsOf("anew"));
    expect(await readdir(folder)).not.toContain("finished.partial");
  });

  it.each([
    [
      ["--method", "tis", "a"],
      '--method is one of paramdelta, task, ties, dare, slerp, linear, not "tis" (did you mean "ties"?)',
    ],
    [["--base", "a"], "paramdelta needs --post <model>, the post-trained base"],
    [["--base", "a", "--post", "b"], "paramdelta needs --new-base <model>, which gets the skills"],
    [["--method", "ties", "a"], "ties needs --base <model>, which the models were trained from"],
    [["--method", "ties", "--base", "a"], "ties needs models to merge: pare merge --method ties A B"],
    [["--method", "slerp", "a"], "slerp goes from one model to another; it was given 1"],
    [["--method", "linear", "a"], "linear averages two models or more: pare merge --method linear A B"],
    [["--method", "linear", "a", "b", "--weights", "1"], "--weights gives 1 for 2 models"],
    [
      ["--method", "linear", "a", "b", "--weights", "1,x"],
      '--weights takes numbers with commas between them, not "1,x"',
    ],
    [["--method", "linear", "a", "b", "--density", "1"], "--density is for ties, dare; linear does not heed it"],
    [["--method", "ties", "--base", "a", "b", "--density", "2"], "a density is a share of the entries, above 0"],
    [["--method", "linear", "a", "b"], "where is the merged model to go? --out <folder>"],
  ])("refuses %j", async (words, message) => {
    const { code, err } = await pare("merge", ...words);
    expect(code).toBe(2);
    expect(err).toContain(message);
  });

  it("refuses models that do not belong together, and folders that are no models", async () => {
    const wide = { ...json, intermediate_size: 32 };
    await saveModel(at("wide"), { json: wide, weights: tinyModel({ ...shape, intermediate_size: 32 }).weights });
    const linear = async (name: string): Promise<string> =>
      (await pare("merge", "--method", "linear", at("post"), at(name), "--out", at("never"))).err;
    expect(await linear("wide")).toMatch(
      /"model\.layers\.0\.mlp\.\w+\.weight" is \[\d+, \d+\] in \S+post\S+ and \[\d+, \d+\] in \S+wide/,
    );

    await saveModel(at("turned"), { json: { ...json, rope_theta: 5 }, weights: neighbour(2) });
    await saveModel(at("unturned"), { json: { ...json, rope_theta: 7 }, weights: neighbour(2) });
    const words = ["merge", "--method", "linear", at("turned"), at("unturned"), "--out", at("mixed")];
    const refused = await pare(...words);
    expect(refused.err).toMatch(
      /the configurations differ: rope_theta is 5 in \S+turned and 7 in .*add --ignore-config/,
    );
    const forced = await pare(...words, "--ignore-config", "--json");
    expect(JSON.parse(forced.out).warnings[0]).toMatch(/^rope_theta is 5 in/);

    await saveModel(at("packed"), { json, weights: neighbour(2) });
    await writeFile(join(at("packed"), "config.json"), JSON.stringify({ ...json, quantization_config: {} }));
    expect(await linear("packed")).toContain("is quantized; dequantize it first: differences of codes mean nothing");
    await rm(join(at("packed"), "config.json"));
    await writeFile(join(at("packed"), "adapter_config.json"), "{}");
    expect(await linear("packed")).toContain("is an adapter (LoRA), not a model; merge it into its base first");
  });

  it("keeps the reach of a newer base, and refuses models of one base that differ in it", async () => {
    const scaling = { rope_scaling: { rope_type: "linear", factor: 4 }, max_position_embeddings: 160 };
    await saveModel(at("longer"), { json: { ...json, ...scaling }, weights: neighbour(2) });
    await writeFile(join(at("longer"), "config.json"), JSON.stringify({ ...json, ...scaling }));
    const words = ["--base", at("base"), "--post", at("post"), "--new-base", at("longer"), "--out", at("stretched")];
    const { code, out, err } = await pare("merge", ...words);
    expect([code, err]).toEqual([0, ""]);
    expect(out).toMatch(
      /warning: rope_scaling is \{"rope_type":"linear","factor":4\} in \S+longer and null in \S+base; the result keeps that of the new base/,
    );
    expect(JSON.parse(await readFile(join(at("stretched"), "config.json"), "utf8"))).toMatchObject(scaling);
    const siblings = await pare("merge", "--method", "linear", at("post"), at("longer"), "--out", at("unlike"));
    expect(siblings.err).toMatch(
      /the configurations differ: rope_scaling is null in \S+post and \{.*add --ignore-config/,
    );
  });

  it("shows an example in its help", async () => {
    expect((await pare("merge", "--help")).out).toMatch(/\n\nExample:\n {2}pare merge --base .* --out my-instruct\n$/);
  });
});
