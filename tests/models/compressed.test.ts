import { mkdtemp, readFile, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { getLlama, LlamaLogLevel } from "node-llama-cpp";
import { afterEach, beforeEach, describe, expect, it } from "vitest";
import {
  FormatError,
  ggufTokenizerMetadata,
  ggufTypes,
  pendingTensors,
  readTensors,
  tokenizerJsonFromLlama2c,
} from "../../src/formats/index.ts";
import { openGguf, openSafetensors, saveGguf, saveSafetensors, saveSafetensorsFolder } from "../../src/formats/node.ts";
import { denseValues } from "../../src/methods/weights/report.ts";
import {
  decoderConfig,
  decoderGraph,
  decoderToGguf,
  ggufWeights,
  type LoadedDecoder,
  ModelError,
  requireTokenizer,
} from "../../src/models/index.ts";
import { embeddedModel, openModel, saveCompressedTensors, saveModel } from "../../src/models/node.ts";
import {
  BlockWeight,
  Dense,
  HalfWeight,
  LowRank,
  type RoundOptions,
  roundToBlocks,
  SumWeight,
  storeWeights,
  TransformedWeight,
  toSparse,
  Weight,
} from "../../src/nn/index.ts";
import { nodesOf } from "../../src/onnx/index.ts";
import { HostTensor, Rng } from "../../src/tensor/index.ts";
import { tinyPieces } from "../formats/tiny-llama.ts";
import { theirLogProbabilities } from "../support/llama-cpp.ts";
import { greedy, ours } from "./continuation.ts";
import { family, type Json, randomWeights } from "./family.ts";

const patience = 300_000;

let folder: string;
beforeEach(async () => {
  folder = await mkdtemp(join(tmpdir(), "pare-compressed-"));
});
afterEach(async () => {
  await rm(folder, { recursive: true });
});

type Loaded = Record<string, Weight | HostTensor>;

const isMatrix = ({ shape }: HostTensor): boolean => shape.length === 2;

/** A small model whose matrices are what `represent` makes of them. */
function tiny(json: Json, represent: (tensor: HostTensor, name: string) => Weight) {
  const weights: Loaded = Object.fromEntries(
    Array.from(randomWeights(json), ([name, tensor]) => [name, isMatrix(tensor) ? represent(tensor, name) : tensor]),
  );
  return { json, config: decoderConfig(json), weights };
}

const rounded =
  (options: RoundOptions) =>
  (tensor: HostTensor): Weight =>
    roundToBlocks(tensor, { ...options, exact: true });
const int4 = rounded({ format: "int4", block: 32 });
const llama = family.llama!;

/** As tensors and descriptions, which can be compared. */
const taken = (weights: LoadedDecoder["weights"]) => {
  const { tensors, description } = storeWeights(weights);
  return { tensors: new Map(Object.entries(tensors).sort()), description };
};

/** Each of these in turn. */
const representations: readonly ((tensor: HostTensor) => Weight)[] = [
  int4,
  rounded({ format: "int8", block: "channel", scales: "f16" }),
  rounded({ format: "int3", block: 16, symmetric: false }),
  (tensor) => new Dense(tensor),
  (tensor) => new HalfWeight(tensor.cast("bf16")),
  (tensor) => toSparse(tensor.cast("f16")),
  (tensor) => new TransformedWeight(int4(tensor), { hadamard: 16 }),
  ({ shape: [rows, columns] }) => {
    const rng = new Rng(3);
    const low = new LowRank(
      new Dense(rng.normalTensor([rows!, 4]).cast("f16")),
      rounded({ format: "int8", block: 16 })(rng.normalTensor([4, columns!])),
    );
    return new SumWeight([{ weight: low, scale: 0.5 }, { weight: toSparse(rng.normalTensor([rows!, columns!])) }]);
  },
];

describe("a saved model", { timeout: patience }, () => {
  it.each(["llama", "llama, tied", "gpt2"])("comes back bit by bit in any representation: %s", async (name) => {
    let turn = 0;
    const saved = tiny(family[name]!, (tensor) => representations[turn++ % representations.length]!(tensor));
    await saveModel(folder, saved);
    await using model = await openModel(folder);
    expect(taken(model.weights)).toEqual(taken(saved.weights));
    expect(model.json).toEqual({ ...saved.json, torch_dtype: "float32" });
  });

  it("keeps the type of dense weights only where it is to", async () => {
    const saved = tiny(llama, (tensor, name) =>
      name.includes("embed") ? new Dense(tensor.cast("f16")) : new HalfWeight(tensor.cast("f16")),
    );
    await saveModel(folder, saved);
    await using widened = await openModel(folder);
    await using stored = await openModel(folder, { dtype: "stored" });
    const kinds = ({ weights }: LoadedDecoder) =>
      ["model.embed_tokens.weight", "lm_head.weight"].map((name) => {
        const weight = weights[name] as Dense | HalfWeight;
        return [weight.kind, weight.values.dtype];
      });
    expect(kinds(widened)).toEqual([
      ["dense", "f32"],
      ["half", "f16"],
    ]);
    expect(kinds(stored)).toEqual([
      ["dense", "f16"],
      ["half", "f16"],
    ]);
    expect(stored.json.torch_dtype).toBe("float16");
  });

  it("is found again in shards, and replaced by a dense one as a whole", async () => {
    const saved = tiny(llama, int4);
    const { tensors, description } = storeWeights(saved.weights);
    const metadata = new Map([["pare.weights", JSON.stringify(description)]]);
    await saveModel(folder, saved);
    await saveSafetensorsFolder(folder, pendingTensors(Object.entries(tensors)), { metadata, maxShardBytes: 20_000 });
    await using model = await openModel(folder);
    expect(taken(model.weights)).toEqual(taken(saved.weights));
    await saveModel(
      folder,
      tiny(llama, (tensor) => new Dense(tensor)),
    );
    await using dense = await openModel(folder);
    expect(taken(dense.weights).description).toEqual({});
  });

  it("still has its packed weights where it is run and exported", async () => {
    await saveModel(folder, tiny(llama, int4));
    await using model = await openModel(folder);
    const { outputs } = decoderGraph(model.config, model.weights);
    const operators = nodesOf(outputs.map(({ tensor }) => tensor)).map(({ op }) => op);
    expect(operators.filter((op) => op === "com.microsoft.MatMulNBits").length).toBe(7 * 2 + 1);
  });

  it("is refused, before numbers are read, where its description does not fit", async () => {
    const saved = tiny(llama, int4);
    await saveModel(folder, saved);
    const path = join(folder, "model.safetensors");
    const { tensors, description } = storeWeights(saved.weights);
    const name = "lm_head.weight";
    const { [name]: head, ...others } = description;
    const attempt = async (text: string, given: Record<string, HostTensor> = tensors): Promise<void> => {
      await saveSafetensors(path, pendingTensors(Object.entries(given)), new Map([["pare.weights", text]]));
      await using _ = await openModel(folder);
    };
    const changed = (changes: object) => JSON.stringify({ ...others, [name]: { ...head, ...changes } });
    const attributes = (changes: object) => changed({ attributes: { ...head!.attributes, ...changes } });
    for (const [text, message] of [
      ["{", `${path}, pare.weights: it is not JSON`],
      ["[]", `${path}, pare.weights: it describes no weights by name`],
      ["[".repeat(100), `${path}, pare.weights: JSON nested deeper than 64`],
      [changed({ kind: "magic" }), `${path}: "${name}" is of kind "magic"; known are dense, affine-input, blocks`],
      [changed({ kind: "__proto__" }), `${path}: "${name}" is of kind "__proto__"; known are dense`],
      [
        changed({ children: ["codes", "scales", "zeroPoints"] }),
        `${path}: the file lacks the tensor "${name}.zeroPoints"`,
      ],
      [changed({ children: ["scales"] }), `${path}: the description of "${name}" lacks its part "codes"`],
      [attributes({ block: 8 }), `${path}: a block is a multiple of 16 entries, not 8`],
      [attributes({ block: 64 }), `${path}: the codes of this block weight must be [270, 1, 32], not [270, 2, 16]`],
      [attributes({ columns: -1 }), `${path}: the attribute "columns" of "${name}" must be a whole number, not -1`],
      [attributes({ format: "toString" }), `${path}: there is no block format "toString"`],
    ] as const) {
      const failure = attempt(text);
      await expect(failure).rejects.toThrow(FormatError);
      await expect(failure).rejects.toThrow(message);
    }
    await expect(attempt(attributes({ columns: 60 }))).rejects.toThrow(
      new ModelError(`"${name}" has shape [270, 60], but the configuration asks for [270, 64]`),
    );
    await expect(attempt(JSON.stringify(others))).rejects.toThrow(
      new ModelError(`${path}: "${name}.codes" is of type U8; weights of floating point can be used`),
    );
    await expect(attempt(JSON.stringify({ ...others, [name]: head, extra: head }))).rejects.toThrow(
      `${path}: the file lacks the tensor "extra.codes"`,
    );
  });

  it("holds nothing that could not be opened again", async () => {
    class Other extends HalfWeight {
      override readonly kind = "other" as "half";
    }
    const other = tiny(llama, (tensor) => new Other(tensor.cast("f16")));
    await expect(saveModel(join(folder, "new"), other)).rejects.toThrow(
      '"model.embed_tokens.weight" is of kind "other"; known are dense, affine-input, blocks',
    );
  });

  it("runs and is judged from the command line with 4 bits", async () => {
    await using model = await openModel(embeddedModel);
    const weights: Loaded = Object.fromEntries(
      Object.entries(model.weights).map(([name, weight]) => [
        name,
        weight instanceof Dense ? roundToBlocks(weight.values as HostTensor, { format: "int4", block: 32 }) : weight,
      ]),
    );
    await saveModel(folder, { ...model, weights });
    const { start } = await import("../cli/process.ts");
    const ran = await start("run", folder, "-p", "Once upon a time", "-n", "6", "--seed", "1", "--threads", "1").ended;
    expect(ran.err).toContain("[6 tokens");
    expect(ran.code).toBe(0);
    const judged = await start("eval", folder, "--tasks", "held_out", "--limit", "2", "--threads", "1", "--json").ended;
    expect(judged.err).toBe("");
    expect(judged.code).toBe(0);
  });
});

const linear = (represent: (tensor: HostTensor) => Weight) => (tensor: HostTensor, name: string) =>
  name.includes("embed") ? new Dense(tensor) : represent(tensor);

describe("compressed-tensors", { timeout: patience }, () => {
  it.each<[string, RoundOptions, object]>([
    ["int4", { format: "int4", block: 32 }, { num_bits: 4, symmetric: true, strategy: "group", group_size: 32 }],
    [
      "int4 with zero points",
      { format: "int4", block: 16, symmetric: false, scales: "f16" },
      { num_bits: 4, symmetric: false, strategy: "group", group_size: 16 },
    ],
    [
      "int8 by rows",
      { format: "int8", block: "channel" },
      { num_bits: 8, symmetric: true, strategy: "channel", group_size: null },
    ],
  ])("comes back with its codes and scales: %s", async (_, options, scheme) => {
    const saved = tiny(
      llama,
      linear((tensor) => roundToBlocks(tensor, options)),
    );
    const dense = { "lm_head.weight": new HalfWeight(randomWeights(llama).get("lm_head.weight")!.cast("f16")) };
    await saveCompressedTensors(folder, { json: llama, weights: { ...saved.weights, ...dense } });
    const written = JSON.parse(await readFile(join(folder, "config.json"), "utf8"));
    expect(written.quantization_config).toMatchObject({
      quant_method: "compressed-tensors",
      format: "pack-quantized",
      ignore: ["lm_head"],
      config_groups: { group_0: { targets: ["Linear"], weights: { type: "int", dynamic: false, ...scheme } } },
    });
    await using model = await openModel(folder, { dtype: "stored" });
    const expected = { ...saved.weights, "lm_head.weight": new Dense(dense["lm_head.weight"].values) };
    expect(taken(model.weights)).toEqual(taken(expected));
    expect(model.json).toEqual({ ...llama, torch_dtype: "float32" });
    // As a model of pare's own it no longer speaks of the other format.
    await saveModel(folder, model);
    await using again = await openModel(folder, { dtype: "stored" });
    expect(taken(again.weights)).toEqual(taken(expected));
  });

  it("has no place for some weights", async () => {
    const group = (options: RoundOptions) => (tensor: HostTensor) => roundToBlocks(tensor, options);
    const embedded = tiny(llama, int4);
    const mixed = tiny(llama, (tensor, name) =>
      linear(group({ format: "int4", block: name.includes("lm_head") ? 16 : 32 }))(tensor, name),
    );
    const cut = tiny(llama, linear(group({ format: "int4", block: 64 })));
    for (const [model, message] of [
      [embedded, '"model.embed_tokens.weight" is a table of blocks'],
      [
        mixed,
        '"lm_head.weight" is of int4 in blocks of 16, but "model.layers.0.self_attn.q_proj.weight" of int4 in blocks',
      ],
      [cut, '"model.layers.0.mlp.down_proj.weight", whose rows have 96 entries, is of int4 in blocks of 64'],
      [
        tiny(llama, linear(group({ format: "int3", block: 32 }))),
        "is of int3 in blocks of 32; compressed-tensors packs",
      ],
      [tiny(llama, linear(toSparse)), "is represented as sparse; compressed-tensors holds int4 and int8 blocks"],
      [tiny(llama, (tensor) => new Dense(tensor)), "no weight of the model consists of int4 or int8 blocks"],
      [tiny(family.gpt2!, int4), "the layers of Hugging Face's GPT-2 are of another kind"],
    ] as const) {
      const failure = saveCompressedTensors(join(folder, "new"), model);
      await expect(failure).rejects.toThrow(ModelError);
      await expect(failure).rejects.toThrow(message);
    }
  });

  it("is refused where it is of another kind, or damaged", async () => {
    const path = join(folder, "model.safetensors");
    await saveCompressedTensors(folder, tiny(llama, linear(int4)));
    const json = JSON.parse(await readFile(join(folder, "config.json"), "utf8"));
    await using file = await openSafetensors(path);
    const tensors = Object.fromEntries(await readTensors(file));
    const quantization = json.quantization_config;
    const scheme = (weights: object) => ({
      ...quantization,
      config_groups: { group_0: { weights: { ...quantization.config_groups.group_0.weights, ...weights } } },
    });
    const attempt = async (config: object, changes: Record<string, HostTensor | undefined>): Promise<void> => {
      await writeFile(join(folder, "config.json"), JSON.stringify({ ...json, quantization_config: config }));
      const given = Object.entries({ ...tensors, ...changes }).filter(
        (entry): entry is [string, HostTensor] => !!entry[1],
      );
      await saveSafetensors(path, pendingTensors(given));
      await using _ = await openModel(folder);
    };
    const module = "model.layers.0.mlp.up_proj";
    const i64 = (...values: number[]) => HostTensor.from(values, { dtype: "i64" });
    for (const [config, changes, message] of [
      [{ quant_method: "gptq" }, {}, 'the weights are quantized by "gptq", which pare cannot read'],
      [{ ...quantization, format: "marlin-24" }, {}, 'are in the format "marlin-24", not "pack-quantized"'],
      [{ ...quantization, config_groups: {} }, {}, "have no config_groups"],
      [scheme({ num_bits: 3 }), {}, 'hold weights of 3 bits and type "int"'],
      [scheme({ symmetric: false }), {}, /it has ".*\.weight_packed" but no ".*\.weight_zero_point"/],
      [
        quantization,
        { [`${module}.weight_g_idx`]: HostTensor.zeros("i32", [64]) },
        `"${module}.weight_g_idx" reorders columns by activation (act-order), which pare cannot read`,
      ],
      [quantization, { [`${module}.weight_scale`]: undefined }, `but no "${module}.weight_scale"`],
      [quantization, { [`${module}.weight_shape`]: i64(96, -64) }, "does not hold the two sizes of a matrix"],
      [quantization, { [`${module}.weight_shape`]: i64(96) }, "does not hold the two sizes of a matrix"],
      [
        quantization,
        { [`${module}.weight_shape`]: i64(96, 2 ** 40) },
        `"${module}.weight" has shape [96, 1099511627776], but the configuration asks for [96, 64]`,
      ],
      [
        quantization,
        { [`${module}.weight_scale`]: HostTensor.zeros("f32", [96, 0]) },
        `${path}: weight_scale [96, 0] does not go with a matrix [96, 64]`,
      ],
      [
        quantization,
        { [`${module}.weight_packed`]: HostTensor.zeros("i32", [96, 7]) },
        `${path}: weight_packed of a matrix [96, 64] must be i32 [96, 8], not i32 [96, 7]`,
      ],
    ] as const) {
      await expect(attempt(config, changes)).rejects.toThrow(message);
    }
  });
});

describe("GGUF", { timeout: patience }, () => {
  const half = (options: Omit<RoundOptions, "scales">) => rounded({ ...options, scales: "f16" });
  /** Zero points whose product with a scale half precision holds. */
  const withZeros = (tensor: HostTensor): Weight => {
    const { codes, scales, zeroPoints, layout } = half({ format: "int4", block: 32, symmetric: false })(
      tensor,
    ) as BlockWeight;
    const coarse = (scales as HostTensor).toArray().map((scale) => 2 ** Math.round(Math.log2(scale)));
    return new BlockWeight(
      { codes, scales: HostTensor.from(coarse, { shape: scales.shape as number[] }), zeroPoints },
      layout,
    );
  };

  async function saveForThem(path: string, { json, weights }: { json: Json; weights: Loaded }): Promise<void> {
    const { metadata, tensors } = decoderToGguf(json, ggufWeights(weights), ggufTypes("F32"));
    const vocabulary = ggufTokenizerMetadata(tokenizerJsonFromLlama2c(tinyPieces), json["vocab_size"] as number);
    await saveGguf(path, new Map([...metadata, ...vocabulary]), tensors);
  }

  it.each<[string, string, (tensor: HostTensor) => Weight]>([
    ["llama", "Q4_0", half({ format: "int4", block: 32 })],
    ["gpt2", "Q4_0", half({ format: "int4", block: 32 })],
    ["llama", "Q4_1", withZeros],
    ["qwen3", "Q8_0", half({ format: "int8", block: 32 })],
    ["llama", "Q8_0", half({ format: "int8", block: "channel" })],
    ["llama", "F16", (tensor) => new HalfWeight(tensor.cast("f16"))],
    ["llama", "BF16", (tensor) => new HalfWeight(tensor.cast("bf16"))],
  ])("holds the same numbers with the same codes: %s, %s", async (name, type, represent) => {
    const model = tiny(family[name]!, represent);
    const path = join(folder, "model.gguf");
    await saveForThem(path, model);
    await using file = await openGguf(path);
    const kinds = [...file.tensors.values()].filter(({ shape }) => shape.length === 2).map((info) => info.type);
    expect(new Set(kinds)).toEqual(new Set([type]));
    await using back = await openModel(path);
    for (const [key, weight] of Object.entries(model.weights)) {
      const plain = weight instanceof HalfWeight ? (weight.values as HostTensor).cast("f32") : weight;
      const expected = plain instanceof Weight ? await denseValues(plain, { threads: 1 }) : plain;
      const found = back.weights[key]!;
      expect(found instanceof Dense ? found.values : found).toEqual(expected);
    }
  });

  it("refuses what it could hold only roughly, and says what would fit", () => {
    const refusal = (represent: (tensor: HostTensor) => Weight) => () => ggufWeights(tiny(llama, represent).weights);
    const fit = "what fits are blocks of int4";
    for (const [represent, message] of [
      [int4, /"model.embed_tokens.weight" has a scale or offset of [\d.]+, which half precision does not hold exactly/],
      [half({ format: "int4", block: 32, symmetric: false }), /has a scale or offset of -[\d.]+.*without zero points/],
      [
        half({ format: "int4", block: 16 }),
        `, whose rows have 64 entries, consists of int4 blocks of 16, which GGUF has no type for; ${fit}`,
      ],
      [half({ format: "int3", block: 32 }), `consists of int3 blocks of 32, which GGUF has no type for; ${fit}`],
      [half({ format: "int8", block: 32, symmetric: false }), "consists of int8 blocks of 32 with zero points, which"],
      [toSparse, "is represented as sparse; GGUF holds dense weights"],
    ] as const)
      expect(refusal(represent)).toThrow(message);
    const uneven = tiny(family.gpt2!, half({ format: "int4", block: 32 }));
    const key = "model.layers.1.self_attn.k_proj.weight";
    const weights = { ...uneven.weights, [key]: randomWeights(family.gpt2!).get(key)! };
    expect(() => decoderToGguf(uneven.json, ggufWeights(weights), ggufTypes("F32"))).toThrow(
      `"model.layers.1.self_attn.q_proj.weight" is of type Q4_0 and "${key}" F32, but llama.cpp has them in one`,
    );
  });

  it("is continued by llama.cpp as by pare", async () => {
    const llamaCpp = await getLlama({ gpu: false, build: "never", maxThreads: 1, logLevel: LlamaLogLevel.error });
    await using embedded = await openModel(embeddedModel);
    const represent = half({ format: "int4", block: 32 });
    const weights: Loaded = Object.fromEntries(
      Object.entries(embedded.weights).map(([name, weight]) => [
        name,
        weight instanceof Dense ? represent(weight.values as HostTensor) : weight,
      ]),
    );
    const tokenizer = requireTokenizer(embedded);
    const story = tokenizer.encode("Once upon a time, there was a");
    try {
      for (const [model, prompt] of [
        [tiny(llama, represent), [1, 5, 9, 200, 260, 5, 3]],
        [{ ...embedded, weights }, story],
      ] as const) {
        const path = join(folder, "model.gguf");
        await saveForThem(path, model);
        const loaded = await llamaCpp.loadModel({ modelPath: path });
        const context = await loaded.createContext({ contextSize: 128, threads: 1 });
        const sequence = context.getSequence();
        const theirs = await greedy(prompt, (_, fresh) => theirLogProbabilities(sequence, fresh));
        await loaded.dispose();
        expect(theirs.tokens.slice(0, 16)).toEqual((await ours(model, prompt)).tokens.slice(0, 16));
      }
    } finally {
      await llamaCpp.dispose();
    }
  });
});
