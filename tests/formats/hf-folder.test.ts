import { mkdir, mkdtemp, readFile, rm, symlink, truncate, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterEach, beforeEach, describe, expect, it } from "vitest";
import { trainBpe } from "../../src/formats/bpe-train.ts";
import { localModelFiles, readModelFolder, writeModelFiles } from "../../src/formats/hf-folder.node.ts";
import { type ModelFiles, readModelFiles, tokenizerFiles, tokenizerOf } from "../../src/formats/hf-folder.ts";
import { folderLimits } from "../../src/formats/hf-limits.ts";
import { Tokenizer } from "../../src/formats/tokenizer.ts";

/** Files in memory, as a page would have them. */
function inMemory(contents: Record<string, unknown>): ModelFiles {
  const files = new Map(
    Object.entries(contents).map(([path, content]) => [
      path,
      content instanceof Uint8Array
        ? content
        : new TextEncoder().encode(typeof content === "string" ? content : JSON.stringify(content)),
    ]),
  );
  return {
    name: "tiny",
    list: async () => Array.from(files, ([path, { length }]) => ({ path, bytes: length })),
    read: async (path) => files.get(path)!,
  };
}

const config = { model_type: "llama", architectures: ["LlamaForCausalLM"], vocab_size: 300 };
const model = { "config.json": config, "model.safetensors": "" };
const reading = (changes: Record<string, unknown>) => readModelFiles(inMemory({ ...model, ...changes }));

let folder: string;
beforeEach(async () => {
  folder = await mkdtemp(join(tmpdir(), "pare-folder-"));
});
afterEach(async () => {
  await rm(folder, { recursive: true, force: true });
});

describe("readModelFiles", () => {
  it("finds everything that a model is made of", async () => {
    const found = await reading({
      "generation_config.json": { temperature: 0.6 },
      "tokenizer.json": { model: {} },
      "tokenizer_config.json": { eos_token: "</s>", chat_template: "old" },
      "special_tokens_map.json": { eos_token: "<eos>", bos_token: "<s>" },
      "chat_template.jinja": "new",
      "onnx/model.onnx": "",
      "q4.gguf": "",
      "README.md": "",
    });
    expect(found).toEqual({
      name: "tiny",
      config,
      generationConfig: { temperature: 0.6 },
      tokenizerJson: { model: {} },
      tokenizerConfig: { eos_token: "</s>", bos_token: "<s>", chat_template: "old" },
      chatTemplate: { default: "new" },
      weights: { safetensors: ["model.safetensors"], shardOf: undefined, gguf: ["q4.gguf"], onnx: ["onnx/model.onnx"] },
    });
  });

  it("does with the least", async () => {
    expect(await reading({})).toMatchObject({
      config,
      generationConfig: undefined,
      tokenizerJson: undefined,
      chatTemplate: undefined,
    });
    expect(await readModelFiles(inMemory({ "a.gguf": "" }))).toMatchObject({
      config: undefined,
      weights: { gguf: ["a.gguf"], safetensors: [] },
    });
  });

  it("reads several chat templates", async () => {
    const chat_template = [
      { name: "default", template: "a" },
      { name: "tool_use", template: "b" },
    ];
    expect((await reading({ "tokenizer_config.json": { chat_template } })).chatTemplate).toEqual({
      default: "a",
      tool_use: "b",
    });
  });

  it("puts shards in order and knows where each tensor lies", async () => {
    const names = ["model-00001-of-00002.safetensors", "model-00002-of-00002.safetensors"] as const;
    const index = { weight_map: { b: names[1], a: names[0], c: names[1] } };
    const shards = { "config.json": config, [names[0]]: "", [names[1]]: "", "model.safetensors.index.json": index };
    const { weights } = await readModelFiles(inMemory(shards));
    expect(weights.safetensors).toEqual(names);
    expect(Object.fromEntries(weights.shardOf!)).toEqual(index.weight_map);
    const { [names[1]]: _, ...incomplete } = shards;
    await expect(readModelFiles(inMemory(incomplete))).rejects.toThrow(
      "tiny lacks model-00002-of-00002.safetensors, which model.safetensors.index.json names; download it again",
    );
  });

  it.each<[string, Record<string, unknown>, RegExp]>([
    ["no config.json", { "config.json": undefined }, /^tiny has no config\.json; is it the folder of a model\?$/],
    [
      "a config.json that is no object",
      { "config.json": "[1]" },
      /^tiny\/config\.json: it holds \[1\], not an object$/,
    ],
    ["a config.json that is no JSON", { "config.json": "{" }, /^tiny\/config\.json: it is not JSON/],
    [
      "a config.json that is no text",
      { "config.json": Uint8Array.of(0x7b, 0xff, 0x7d) },
      /^tiny\/config\.json: it is not UTF-8 text$/,
    ],
    [
      "a config.json that says two things",
      { "config.json": '{"vocab_size":1,"vocab_size":2}' },
      /^tiny\/config\.json: "vocab_size" is named twice$/,
    ],
    [
      "a config.json without bottom",
      { "config.json": `{"a":${"[".repeat(100)}${"]".repeat(100)}}` },
      /nested deeper than/,
    ],
    ["a model type that is no name", { "config.json": { model_type: 7 } }, /"model_type" is not a name/],
    [
      "architectures that are no names",
      { "config.json": { architectures: "Llama" } },
      /"architectures" is not a list of names/,
    ],
    ["a vocabulary of no size", { "config.json": { vocab_size: 0 } }, /"vocab_size" is 0, not a whole number above 0/],
    ["a vocabulary of half a size", { "config.json": { vocab_size: 0.5 } }, /"vocab_size" is 0\.5/],
    [
      "a chat template that is a number",
      { "tokenizer_config.json": { chat_template: 1 } },
      /"chat_template" is neither a template nor a list of them/,
    ],
    [
      "a nameless chat template",
      { "tokenizer_config.json": { chat_template: [{ template: "a" }] } },
      /an entry of "chat_template" is not a name with a template/,
    ],
    [
      "two chat templates of one name",
      {
        "tokenizer_config.json": {
          chat_template: [
            { name: "a", template: "" },
            { name: "a", template: "" },
          ],
        },
      },
      /"chat_template" has two entries called "a"/,
    ],
    [
      "an index without a map",
      { "model.safetensors": undefined, "model.safetensors.index.json": {} },
      /it has no "weight_map" object/,
    ],
    ...[
      "../evil.safetensors",
      "/evil.safetensors",
      "a/b.safetensors",
      "C:evil.safetensors",
      "..",
      "a\\b.safetensors",
    ].map((shard): [string, Record<string, unknown>, RegExp] => [
      `a shard called ${shard}`,
      { "model.safetensors": undefined, "model.safetensors.index.json": { weight_map: { a: shard } } },
      /not a plain \.safetensors file name/,
    ]),
  ])("refuses %s", async (_, changes, message) => {
    const files = Object.fromEntries(
      Object.entries({ ...model, ...changes }).filter(([, content]) => content !== undefined),
    );
    await expect(readModelFiles(inMemory(files))).rejects.toThrow(message);
  });

  it("refuses folders of endless files", async () => {
    const files = inMemory(model);
    const many = Array.from({ length: folderLimits.files + 1 }, (_, i) => ({ path: `${i}`, bytes: 0 }));
    await expect(readModelFiles({ ...files, list: async () => many })).rejects.toThrow(
      /tiny: 10001 files are over the limit of 10000/,
    );
  });

  it("says how to make a tokenizer.json when there is none", async () => {
    expect(tokenizerOf(await reading({ "tokenizer.json": {} }))).toEqual({
      tokenizerJson: {},
      tokenizerConfig: undefined,
      chatTemplate: undefined,
    });
    const old = await reading({ "tokenizer.model": "" });
    expect(() => tokenizerOf(old)).toThrow(/tiny has no tokenizer\.json; in Python, AutoTokenizer/);
  });
});

describe("folders on disk", () => {
  it("come back as they were saved, the tokenizer byte for byte", async () => {
    const source = join(folder, "source");
    const target = join(folder, "made", "target");
    const tokenizerJson = trainBpe(["hello hello hello"], { vocabSize: 270, specialTokens: ["<|end|>"] });
    const odd = `${JSON.stringify(tokenizerJson)}   \n\n`;
    await writeModelFiles(source, {
      "config.json": config,
      "tokenizer.json": odd,
      "tokenizer_config.json": { eos_token: "<|end|>" },
      "chat_template.jinja": "{{ eos_token }}",
    });
    const copied = await tokenizerFiles(await localModelFiles(source));
    await writeModelFiles(target, { "config.json": { ...config, vocab_size: 270 }, ...copied });
    expect(await readFile(join(target, "tokenizer.json"), "utf8")).toBe(odd);
    expect(await readFile(join(target, "config.json"), "utf8")).toBe(
      `${JSON.stringify({ ...config, vocab_size: 270 }, null, 2)}\n`,
    );
    const tokenizer = Tokenizer.fromFiles(tokenizerOf(await readModelFolder(target)));
    expect(tokenizer.decode(tokenizer.encode("hello"))).toBe("hello");
    expect(tokenizer.applyChatTemplate([])).toBe("<|end|>");
    expect(tokenizer.eosId).toBe(0);
  });

  it("are written under plain names only", async () => {
    for (const name of ["../config.json", "a/b.json", "", ".hidden", "c:x"]) {
      await expect(writeModelFiles(folder, { [name]: "" })).rejects.toThrow(
        /is not the name of a file in a model's folder/,
      );
    }
  });

  it("do not lead out of themselves", async () => {
    const outside = join(folder, "outside");
    const inside = join(folder, "inside");
    await writeModelFiles(outside, { "secret.json": "{}" });
    await writeModelFiles(inside, { "config.json": config, "real.safetensors": "" });
    await symlink(join(outside, "secret.json"), join(inside, "tokenizer.json"));
    await symlink(outside, join(inside, "sub"));
    await symlink(join(inside, "nowhere"), join(inside, "generation_config.json"));
    await symlink("real.safetensors", join(inside, "model.safetensors"));
    const files = await localModelFiles(inside);
    expect((await files.list()).map(({ path }) => path).sort()).toEqual([
      "config.json",
      "model.safetensors",
      "real.safetensors",
    ]);
    await expect(files.read("../outside/secret.json", 100)).rejects.toThrow(/has no \.\.\/outside\/secret\.json/);
  });

  it("lead from snapshots of the hub's cache into its blobs, and no further", async () => {
    const repository = join(folder, "models--org--tiny");
    const snapshot = join(repository, "snapshots", "abc");
    await mkdir(snapshot, { recursive: true });
    await writeModelFiles(join(repository, "blobs"), { "1": JSON.stringify(config) });
    await writeModelFiles(join(folder, "models--org--other", "blobs"), { "2": "{}" });
    await symlink("../../blobs/1", join(snapshot, "config.json"));
    await symlink("../../../models--org--other/blobs/2", join(snapshot, "tokenizer.json"));
    await writeFile(join(snapshot, "model.safetensors"), "");
    expect(await readModelFolder(snapshot)).toMatchObject({ config, tokenizerJson: undefined });
  });

  it("are measured before they are read", async () => {
    await writeModelFiles(folder, { "config.json": config, "model.safetensors": "" });
    await truncate(join(folder, "config.json"), folderLimits.jsonBytes + 1);
    await expect(readModelFolder(folder)).rejects.toThrow(
      /config\.json: its 10000001 bytes are over the limit of 10000000/,
    );
  });

  it("must be there", async () => {
    await expect(readModelFolder(join(folder, "nowhere"))).rejects.toMatchObject({ code: "FILE" });
    await writeFile(join(folder, "file"), "");
    await expect(readModelFolder(join(folder, "file"))).rejects.toMatchObject({ code: "FILE" });
    await writeFile(join(folder, "taken"), "");
    await expect(writeModelFiles(join(folder, "taken"), { a: "" })).rejects.toMatchObject({ code: "FILE" });
  });
});
