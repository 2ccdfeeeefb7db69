import { mkdir, mkdtemp, readdir, readFile, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterEach, beforeEach, describe, expect, it } from "vitest";
import {
  FileError,
  ggufTokenizerMetadata,
  ggufTypes,
  type Llama2cPiece,
  type LlamaConfig,
  pendingTensors,
  type TensorFile,
  Tokenizer,
  tokenizerJsonFromLlama2c,
} from "../../src/formats/index.ts";
import { openSafetensors, saveGguf, saveSafetensors, saveSafetensorsFolder } from "../../src/formats/node.ts";
import { joinRotaryPairs } from "../../src/formats/rotary.ts";
import {
  decoderConfig,
  decoderLogits,
  decoderShapes,
  decoderToGguf,
  denseTensors,
  initDecoder,
  type LoadedDecoder,
  loadDecoder,
  ModelError,
  requireTokenizer,
} from "../../src/models/index.ts";
import { openModel, saveModel } from "../../src/models/node.ts";
import { Dense, Weight } from "../../src/nn/index.ts";
import { compile } from "../../src/runtime/index.ts";
import { ArgumentError, children, type DType, HostTensor, input, Rng, rebuild, spec } from "../../src/tensor/index.ts";
import { concat, le } from "../formats/malformed.ts";
import { randomWeights, tinyConfig, tinyPieces } from "../formats/tiny-llama.ts";

let folder: string;
beforeEach(async () => {
  folder = await mkdtemp(join(tmpdir(), "pare-load-"));
});
afterEach(async () => {
  await rm(folder, { recursive: true });
});

const config = tinyConfig({ num_hidden_layers: 1, hidden_size: 16, intermediate_size: 24, head_dim: 4 });
const json = { ...config };
const tensors = randomWeights(config, 5);
const weights = Object.fromEntries(tensors);
const tokenizer = Tokenizer.fromFiles({
  ...tokenizerJsonFromLlama2c(tinyPieces),
  chatTemplate: "{{ messages[0].content }}",
});
const ids = [1, 5, 9, 200, 260, 5, 3];

async function logitsOf({ config, weights }: Pick<LoadedDecoder, "config"> & { weights: object }): Promise<number[]> {
  await using program = await compile(
    (tokens) => decoderLogits(config, weights as LoadedDecoder["weights"], tokens),
    [spec("i64", [1, ids.length])],
    { threads: 1 },
  );
  return (await program(HostTensor.from(ids, { dtype: "i64", shape: [1, ids.length] }))).toArray();
}

const expected = (changes = {}) => logitsOf({ config: decoderConfig({ ...json, ...changes }), weights });

/** Writes a folder of a model, which need not make sense. */
async function saveFolder(config: object, entries: Iterable<readonly [string, HostTensor]>): Promise<void> {
  await writeFile(join(folder, "config.json"), JSON.stringify(config));
  await saveSafetensors(join(folder, "model.safetensors"), pendingTensors(entries));
}

const cast = (dtype: DType) => Object.fromEntries(Array.from(tensors, ([name, t]) => [name, t.cast(dtype)]));

describe("a folder of Hugging Face's", () => {
  it.each<[string, Record<string, unknown>]>([
    ["llama", { model_type: "llama", attention_bias: true, mlp_bias: true }],
    ["tied llama", { model_type: "llama", tie_word_embeddings: true }],
    ["qwen3", { model_type: "qwen3" }],
    ["gemma2", { model_type: "gemma2", hidden_activation: "gelu_pytorch_tanh", tie_word_embeddings: true }],
  ])("comes back as it was saved: %s", async (_, changes) => {
    const saved = {
      json: { ...json, ...changes },
      weights: initDecoder(decoderConfig({ ...json, ...changes }), new Rng(2)),
    };
    await saveModel(join(folder, "new"), saved);
    await using model = await openModel(join(folder, "new"));
    expect(model.json).toEqual({ ...saved.json, torch_dtype: "float32" });
    expect(model.config).toEqual(decoderConfig(saved.json));
    expect([...denseTensors(model.weights)]).toEqual(expect.arrayContaining([...denseTensors(saved.weights)]));
    expect(await logitsOf(model)).toEqual(await logitsOf({ config: model.config, weights: saved.weights }));
    expect(model.tokenizer).toBeNull();
  });

  it("of GPT-2 has names and shapes of its own, as old files do without a prefix and with masks", async () => {
    const json = { model_type: "gpt2", vocab_size: 23, n_embd: 16, n_layer: 2, n_head: 4, n_positions: 16 };
    const config = decoderConfig(json);
    const weights = Object.fromEntries(
      Array.from(decoderShapes(config), ([name, shape]) => [name, new Rng(2).fork(name).normalTensor(shape)]),
    );
    await saveModel(folder, { json, weights });
    const stored = await openSafetensors(join(folder, "model.safetensors"));
    const old = new Map<string, HostTensor>([["h.0.attn.bias", HostTensor.zeros("f32", [1, 1, 16, 16])]]);
    for (const name of stored.tensors.keys()) old.set(name.replace("transformer.", ""), await stored.read(name));
    await stored.close();
    expect(old.size).toBe(4 + 2 * 12 + 1);
    expect(old.get("wpe.weight")).toEqual(weights["model.embed_positions.weight"]);
    expect(old.get("h.1.mlp.c_fc.weight")!.shape).toEqual([16, 64]);
    // [in, out], and all queries before all keys before all values.
    const attention = old.get("h.1.attn.c_attn.weight")!;
    expect(attention.shape).toEqual([16, 48]);
    for (const [i, part] of ["q", "k", "v"].entries()) {
      const matrix = weights[`model.layers.1.self_attn.${part}_proj.weight`]!;
      expect(attention.at(3 * 48 + 16 * i + 5)).toBe(matrix.at(5 * 16 + 3));
      const bias = weights[`model.layers.1.self_attn.${part}_proj.bias`]!;
      expect(old.get("h.1.attn.c_attn.bias")!.at(16 * i + 5)).toBe(bias.at(5));
    }
    for (const entries of [undefined, old]) {
      if (entries) await saveFolder(json, entries);
      await using model = await openModel(folder);
      expect(Object.fromEntries(denseTensors(model.weights))).toEqual(weights);
      const [q] = [model.tensors.tensors.get("model.layers.0.self_attn.q_proj.weight")!];
      expect(q).toMatchObject({ shape: [16, 16], bytes: 4 * 16 * 16 });
    }
    await saveFolder(json, [...old, ["h.0.oddity.weight", HostTensor.zeros("f32", [1])]]);
    await expect(openModel(folder)).rejects.toThrow('no GPT-2 has a tensor called "h.0.oddity.weight"');
  });

  it("holds the tokenizer with its templates, and nothing half written", async () => {
    await saveModel(folder, { json, weights, tokenizer });
    expect((await readdir(folder)).sort()).toEqual([
      "config.json",
      "model.safetensors",
      "tokenizer.json",
      "tokenizer_config.json",
    ]);
    await using model = await openModel(folder);
    expect(model.source).toBe(folder);
    expect(requireTokenizer(model).encode("abc a")).toEqual(tokenizer.encode("abc a"));
    expect(requireTokenizer(model).chatTemplate).toBeDefined();
    expect(requireTokenizer(model).files).toMatchObject({ chatTemplate: { default: "{{ messages[0].content }}" } });
    // An opened model is one to save, here over itself while it is open; two templates are kept apart.
    const chatTemplate = { default: "a", tool_use: "b" };
    await saveModel(folder, { ...model, tokenizer: Tokenizer.fromFiles({ ...tokenizer.files, chatTemplate }) });
    await using again = await openModel(folder);
    expect(requireTokenizer(again).files.chatTemplate).toEqual(chatTemplate);
    expect(await logitsOf(again)).toEqual(await expected());
  });

  it("says in its file what other libraries look for", async () => {
    await saveModel(folder, { json: { ...json, dtype: "float16" }, weights: cast("bf16") });
    await using file = await openSafetensors(join(folder, "model.safetensors"));
    expect(file.metadata).toEqual(new Map([["format", "pt"]]));
    expect(JSON.parse(await readFile(join(folder, "config.json"), "utf8"))).toEqual({ ...json, dtype: "bfloat16" });
  });

  it("may be in shards, which a smaller model then replaces", async () => {
    await saveSafetensorsFolder(folder, pendingTensors(tensors), { maxShardBytes: 10_000 });
    await writeFile(join(folder, "config.json"), JSON.stringify(json));
    expect((await readdir(folder)).filter((name) => /^model-0000\d-of/.test(name)).length).toBeGreaterThan(2);
    await using model = await openModel(folder);
    expect(await logitsOf(model)).toEqual(await expected());
    await saveModel(folder, { json, weights: cast("f16") });
    await using smaller = await openModel(folder, { dtype: "stored" });
    expect(smaller.tensors.tensors.get("model.norm.weight")!.dtype).toBe("f16");
  });

  it.each(["bf16", "f16"] as const)("of %s is converted unless asked otherwise", async (dtype) => {
    const halves = cast(dtype);
    await saveModel(folder, { json, weights: halves });
    await using converted = await openModel(folder);
    await using kept = await openModel(folder, { dtype: "stored" });
    for (const [name, tensor] of denseTensors(kept.weights)) expect(tensor).toEqual(halves[name]);
    for (const [name, tensor] of denseTensors(converted.weights)) expect(tensor).toEqual(halves[name]!.cast("f32"));
    expect(await converted.tensors.read("model.norm.weight")).toEqual(halves["model.norm.weight"]);
    expect(Object.values(kept.weights).filter((w) => w instanceof Dense).length).toBe(9);
  });

  it("may hold a second copy of a tied head, and tables of positions", async () => {
    const extra = [...tensors, ["model.layers.0.self_attn.rotary_emb.inv_freq", HostTensor.zeros("f32", [2])] as const];
    await saveFolder({ ...json, tie_word_embeddings: true }, extra);
    await using model = await openModel(folder);
    expect(Object.keys(model.weights)).not.toContain("lm_head.weight");
    expect(await logitsOf(model)).toEqual(await expected({ tie_word_embeddings: true }));
    await saveFolder(json, extra);
    await using untied = await openModel(folder);
    expect(await logitsOf(untied)).toEqual(await expected());
  });

  it("is found in the hub's cache by its name", async () => {
    const commit = "0123456789abcdef0123456789abcdef01234567";
    const repository = join(folder, "models--owner--tiny");
    await saveModel(join(repository, "snapshots", commit), { json, weights });
    await mkdir(join(repository, "refs"));
    await writeFile(join(repository, "refs", "main"), commit);
    await using model = await openModel("owner/tiny", { hub: { cacheDir: folder, offline: true } });
    expect(model.source).toBe(join(repository, "snapshots", commit));
    expect(await logitsOf(model)).toEqual(await expected());
  });
});

describe("a GGUF file", () => {
  // The format keeps the norms' epsilon in single precision.
  const exact = { ...config, rms_norm_eps: 2 ** -17 };
  const save = async (name: string, withTokenizer: boolean): Promise<string> => {
    const { metadata, tensors: pending } = decoderToGguf({ ...exact }, pendingTensors(tensors), ggufTypes("F32"));
    const { tokenizerJson, tokenizerConfig } = tokenizer.files;
    const chatTemplate = "{{ messages[0].content }}";
    const vocabulary = ggufTokenizerMetadata({ tokenizerJson, tokenizerConfig, chatTemplate }, config.vocab_size);
    await saveGguf(join(folder, name), new Map([...metadata, ...(withTokenizer ? vocabulary : [])]), pending);
    return join(folder, name);
  };

  it("gives the logits and the tokenizer that it was made of", async () => {
    await using model = await openModel(await save("tiny.gguf", true));
    expect(await logitsOf(model)).toEqual(await expected(exact));
    expect(model.json).toEqual(exact);
    expect(requireTokenizer(model).encode("abc a")).toEqual(tokenizer.encode("abc a"));
    expect(requireTokenizer(model).chatTemplate).toBeDefined();
    await saveModel(join(folder, "converted"), model);
    await using converted = await openModel(join(folder, "converted"));
    expect(await logitsOf(converted)).toEqual(await expected(exact));
    expect(requireTokenizer(converted).encode("abc a")).toEqual(tokenizer.encode("abc a"));
  });

  it("is told from a folder by what it is, not by its name", async () => {
    const named = join(folder, "model.gguf");
    await saveModel(named, { json, weights });
    await using model = await openModel(named);
    expect(await logitsOf(model)).toEqual(await expected());
  });

  it("is found in its folder, alone and without a tokenizer too", async () => {
    const path = await save("tiny.gguf", false);
    await using model = await openModel(folder);
    expect([model.source, model.tokenizer]).toEqual([folder, null]);
    expect(() => requireTokenizer(model)).toThrow(
      new ModelError(
        `${folder} has no tokenizer; a folder keeps it in tokenizer.json, a GGUF file in its metadata, and llama2.c in tok<vocabulary>.bin or tokenizer.bin beside the checkpoint`,
      ),
    );
    await writeFile(join(folder, "other.gguf"), await readFile(path));
    await expect(openModel(folder)).rejects.toThrow(
      new ModelError(`${folder} holds several models; give the path of one of other.gguf, tiny.gguf`),
    );
  });

  it("of another architecture is refused, with what is supported", async () => {
    const path = join(folder, "other.gguf");
    await saveGguf(path, new Map([["general.architecture", { type: "string", value: "mamba" }]]), []);
    await expect(openModel(path)).rejects.toThrow(
      `${path}: its architecture is "mamba"; supported are llama, qwen2, qwen3, gemma2, gemma3, gpt2`,
    );
  });
});

/** A checkpoint of llama2.c's first format: neighbours are pairs, and tables of angles lie before the head. */
function llama2c(config: LlamaConfig): Uint8Array {
  const part = (name: string): Uint8Array => {
    const tensor = tensors.get(name)!;
    if (name.includes("q_proj")) return joinRotaryPairs(tensor, config.num_attention_heads).rawBytes();
    if (name.includes("k_proj")) return joinRotaryPairs(tensor, config.num_key_value_heads).rawBytes();
    return tensor.rawBytes();
  };
  const { hidden_size, intermediate_size, num_attention_heads, num_key_value_heads, max_position_embeddings } = config;
  const inLayer = ["input_layernorm", ...["q", "k", "v", "o"].map((p) => `self_attn.${p}_proj`)].concat(
    "post_attention_layernorm",
    ["gate", "down", "up"].map((p) => `mlp.${p}_proj`),
  );
  return concat(
    [
      ...[hidden_size, intermediate_size, 1, num_attention_heads, num_key_value_heads, -config.vocab_size],
      max_position_embeddings,
    ]
      .map((n) => le(n, 4))
      .concat(
        part("model.embed_tokens.weight"),
        inLayer.map((module) => part(`model.layers.0.${module}.weight`)),
        part("model.norm.weight"),
        new Uint8Array(4 * max_position_embeddings * config.head_dim),
        part("lm_head.weight"),
      ),
  );
}

function llama2cVocabulary(pieces: readonly Llama2cPiece[]): Uint8Array {
  const encoded = pieces.map(({ text, score }) => ({ bytes: new TextEncoder().encode(text), score }));
  const scored = encoded.flatMap(({ bytes, score }) => [
    new Uint8Array(new Float32Array([score]).buffer),
    le(bytes.length, 4),
    bytes,
  ]);
  return concat([le(32, 4), ...scored]);
}

describe("a checkpoint of llama2.c", () => {
  it.each(["tok270.bin", "tokenizer.bin"])("gives the logits that it was made of, with %s beside it", async (name) => {
    const path = join(folder, "model.bin");
    await writeFile(path, llama2c(config));
    await using alone = await openModel(path);
    expect(alone.tokenizer).toBeNull();
    expect(alone.json).toEqual(json);
    expect(await logitsOf(alone)).toEqual(await expected());
    await writeFile(join(folder, name), llama2cVocabulary(tinyPieces));
    await using model = await openModel(path);
    expect(requireTokenizer(model).encode("abc a")).toEqual(tokenizer.encode("abc a"));
  });

  it("is refused with a vocabulary of another size, and where it is none", async () => {
    await writeFile(join(folder, "model.bin"), llama2c(config));
    await writeFile(join(folder, "tokenizer.bin"), llama2cVocabulary(tinyPieces.slice(0, 260)));
    await expect(openModel(join(folder, "model.bin"))).rejects.toThrow(/tokenizer\.bin.*(cut short|cannot hold)/);
    await expect(openModel(join(folder, "tokenizer.bin"))).rejects.toThrow("does not describe a Llama");
  });
});

describe("openModel refuses", () => {
  it.each<[string, Record<string, unknown>, string]>([
    [
      "an unknown architecture",
      { model_type: "mamba" },
      'config.json: the model type "mamba" is not supported as a decoder; supported are llama, mistral, qwen2, qwen3, gemma2, gemma3_text, gpt2',
    ],
    [
      "weights of another shape",
      { intermediate_size: 32 },
      '"model.layers.0.mlp.gate_proj.weight" has shape [24, 16], but the configuration asks for [32, 16]',
    ],
    [
      "weights that are missing",
      { num_hidden_layers: 2 },
      'the weights lack "model.layers.1.input_layernorm.weight", which the configuration asks for with shape [16]',
    ],
    [
      "half a layer",
      { num_hidden_layers: 0.5 },
      'config.json: "num_hidden_layers" must be a whole number from 1, not 0.5',
    ],
  ])("%s", async (_, changes, message) => {
    await saveFolder({ ...json, ...changes }, tensors);
    await expect(openModel(folder)).rejects.toThrow(new ModelError(message));
  });

  it("weights that have no place, are of whole numbers, quantized, or too few by far", async () => {
    const zeros = (dtype: DType, ...shape: number[]) => HostTensor.zeros(dtype, shape);
    await saveFolder(json, [...tensors, ["model.extra.weight", zeros("f32", 2)]]);
    await expect(openModel(folder)).rejects.toThrow(
      new ModelError('the weights hold "model.extra.weight", which the configuration of a llama has no place for'),
    );
    await saveFolder(json, new Map(tensors).set("model.norm.weight", zeros("i8", 16)));
    await expect(openModel(folder)).rejects.toThrow(
      new ModelError(
        `${join(folder, "model.safetensors")}: "model.norm.weight" is of type I8; weights of floating point can be used`,
      ),
    );
    await saveFolder({ ...json, quantization_config: { quant_method: "gptq", bits: 4 } }, tensors);
    await expect(openModel(folder)).rejects.toThrow(
      new ModelError(
        `${join(folder, "model.safetensors")}: config.json says that the weights are quantized by "gptq", which pare cannot read; open the model that they were made from`,
      ),
    );
    await saveFolder({ ...json, num_hidden_layers: 1e9 }, tensors);
    await expect(openModel(folder)).rejects.toThrow(
      new ModelError(
        `${join(folder, "model.safetensors")}: the configuration asks for 1000000000 layers, but there are only ${tensors.size} tensors`,
      ),
    );
    await saveFolder(
      json,
      [...tensors].filter(([name]) => name !== "lm_head.weight"),
    );
    await expect(openModel(folder)).rejects.toThrow(
      new ModelError('the weights lack "lm_head.weight", which the configuration asks for with shape [270, 16]'),
    );
  });

  it("places that hold no model, saying what was looked for", async () => {
    const lookedFor = (holds: string) =>
      `${folder} holds no model: looked for config.json with model.safetensors (or model.safetensors.index.json and its shards), and for a .gguf file; it holds ${holds}. A llama2.c checkpoint is opened by its own path`;
    await expect(openModel(folder)).rejects.toThrow(new ModelError(lookedFor("nothing")));
    await writeFile(join(folder, "config.json"), JSON.stringify(json));
    await writeFile(join(folder, "pytorch_model.bin"), "");
    await expect(openModel(folder)).rejects.toThrow(new ModelError(lookedFor("config.json, pytorch_model.bin")));
    for (const name of ["a.safetensors", "b.safetensors"]) await saveSafetensors(join(folder, name), []);
    await expect(openModel(folder)).rejects.toThrow(
      new ModelError(
        `${folder} lacks model.safetensors.index.json, which would say what each of a.safetensors, b.safetensors holds`,
      ),
    );
    await rm(join(folder, "config.json"));
    await expect(openModel(folder)).rejects.toThrow(`${folder} has no config.json; is it the folder of a model?`);
  });

  it("files that are not there, or hold no model", async () => {
    for (const name of ["none.gguf", "none.bin", "none.safetensors"]) {
      const path = join(folder, name);
      await expect(openModel(path)).rejects.toThrow(new FileError(`there is no file ${path}`));
      await expect(openModel(name)).rejects.toThrow(new FileError(`there is no file ${name}`));
    }
    await expect(openModel(join(folder, "none"))).rejects.toThrow(`there is no folder ${join(folder, "none")}`);
    await expect(openModel("a b")).rejects.toThrow('"a b" is neither a folder here nor a model on the hub');
    await saveFolder(json, tensors);
    const path = join(folder, "model.safetensors");
    await expect(openModel(path)).rejects.toThrow(
      new ModelError(
        `${path} is no file that holds a whole model; give the folder of a model, a .gguf file, or a llama2.c checkpoint (.bin)`,
      ),
    );
  });
});

describe("loadDecoder", () => {
  /** A file in memory that counts what is being read of it. */
  function counted(entries: ReadonlyMap<string, HostTensor>): TensorFile & { most: number; reads: number } {
    let under = 0;
    const file = {
      most: 0,
      reads: 0,
      name: "memory",
      tensors: new Map(
        Array.from(entries, ([name, { dtype, shape, bytes }]) => [name, { name, type: dtype, dtype, shape, bytes }]),
      ),
      async read(name: string) {
        file.reads++;
        file.most = Math.max(file.most, ++under);
        await Promise.resolve();
        under--;
        return entries.get(name)!;
      },
      async close() {},
      async [Symbol.asyncDispose]() {},
    };
    return file;
  }

  it("reads tensor by tensor, and nothing that turns out not to fit", async () => {
    const file = counted(tensors);
    const { weights: loaded } = await loadDecoder(json, file);
    expect([file.most, file.reads]).toEqual([1, tensors.size]);
    expect(denseTensors(loaded)).toEqual(tensors);
    const short = counted(new Map([...tensors].slice(0, -1)));
    await expect(loadDecoder(json, short)).rejects.toThrow('the weights lack "lm_head.weight"');
    expect(short.reads).toBe(0);
  });
});

describe("saveModel refuses", () => {
  const unused = (): never => expect.unreachable();
  class Other extends Weight {
    override readonly kind = "other";
    override readonly shape: readonly [number, number] = [270, 16];
    override apply = unused;
    override rows = unused;
    override dense = unused;
    override [children] = () => ({});
    override [rebuild] = unused;
  }

  it("weights that disagree with the configuration or could not be opened again, and writes nothing then", async () => {
    const to = join(folder, "new");
    await expect(saveModel(to, { json: { ...json, vocab_size: 9 }, weights })).rejects.toThrow(
      new ModelError('"model.embed_tokens.weight" has shape [270, 16], but the configuration asks for [9, 16]'),
    );
    const name = "lm_head.weight";
    const symbolic = input("w", spec("f32", [270, 16]));
    await expect(saveModel(to, { json, weights: { ...weights, [name]: symbolic } })).rejects.toThrow(
      new ArgumentError(`"${name}" is symbolic; only weights with their numbers can be saved`),
    );
    await expect(saveModel(to, { json, weights: { ...weights, [name]: new Other() } })).rejects.toThrow(
      `"${name}" is of kind "other"; known are dense, affine-input, blocks`,
    );
    expect(await readdir(folder)).toEqual([]);
    await writeFile(to, "");
    await expect(saveModel(to, { json, weights })).rejects.toThrow(FileError);
  });
});
