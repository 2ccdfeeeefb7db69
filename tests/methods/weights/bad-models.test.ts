import { describe, expect, test } from "vitest";
import {
  awqScales,
  clipped,
  compressDecoder,
  type DecoderSource,
  foldGains,
  foldScales,
  gptq,
  type MatrixReport,
  memorySource,
  nearest,
  onlineHadamard,
  planFor,
  rotateResidual,
  smoothScales,
  sparseGpt,
  wanda,
  whitenedSvd,
} from "../../../src/methods/index.ts";
import type { DecoderConfig, Weights } from "../../../src/models/index.ts";
import { Dense } from "../../../src/nn/index.ts";
import { HostTensor } from "../../../src/tensor/index.ts";
import { tinyModel } from "../../generate/models.ts";
import { logits } from "./equivalent.ts";
import { randomWindows } from "./methods.ts";

const device = { threads: 1 };
const grid = { format: "int4", block: 16, symmetric: false } as const;

interface Compressed {
  readonly config: DecoderConfig;
  readonly weights: Weights;
  readonly reports: readonly MatrixReport[];
}

const through = async (
  source: DecoderSource,
  layers: Parameters<typeof planFor>[1]["layers"],
  windows: HostTensor,
  except = {},
): Promise<Compressed> => ({
  config: source.config,
  ...(await compressDecoder(source, planFor(source.config, { layers, except }), windows, device)),
});

/** Each system from a model to a compressed one. */
const systems: Readonly<Record<string, (source: DecoderSource, windows: HostTensor) => Promise<Compressed>>> = {
  GPTQ: (source, windows) => through(source, gptq({ ...grid, activationOrder: true }), windows),
  AWQ: async (source, windows) =>
    through(foldScales(source, await awqScales(source, windows, grid, device)), clipped(grid), windows),
  SmoothQuant: async (source, windows) =>
    through(
      foldScales(source, await smoothScales(source, windows, device)),
      nearest({ format: "int8", block: "channel" }),
      windows,
    ),
  QuaRot: (source, windows) => {
    const online = onlineHadamard(gptq(grid));
    return through(rotateResidual(source), gptq(grid), windows, { "*.*.*.mlp.down_proj.weight": online });
  },
  Wanda: (source, windows) => through(source, wanda({ keep: 2, of: 4 }), windows),
  SparseGPT: (source, windows) => through(source, sparseGpt({ keep: 2, of: 4 }), windows),
  "SVD-LLM": (source, windows) => through(source, whitenedSvd({ ratio: 0.6 }), windows),
};

/** The tiny model with a tensor changed. */
function changed(name: string, change: (values: HostTensor) => void) {
  const { config, weights } = tinyModel();
  const weight = weights[name]!;
  const values = (weight instanceof Dense ? (weight.values as HostTensor) : (weight as HostTensor)).clone();
  change(values);
  return { config, weights: { ...weights, [name]: weight instanceof Dense ? new Dense(values) : values } };
}

const windows = randomWindows(23, 4, 16);
const finite = async (model: Compressed): Promise<void> => {
  for (const v of await logits(model, windows)) expect(Number.isFinite(v)).toBe(true);
};

describe.each(Object.entries(systems))("%s", (name, system) => {
  test("copes with channels that are always zero, and with matrices of zeros", async () => {
    const silent = changed("model.layers.0.input_layernorm.weight", (gain) =>
      (gain.data as Float32Array).fill(0, 4, 7),
    );
    await finite(await system(memorySource(silent), windows));
    const empty = changed("model.layers.1.mlp.up_proj.weight", (matrix) => void (matrix.data as Float32Array).fill(0));
    await finite(await system(memorySource(empty), windows));
  });

  test("copes with channels that are constant, and with rows of one number", async () => {
    // One token over and over: behind the first layer's norm every channel is the same at every place.
    const constant = HostTensor.from(new BigInt64Array(64).fill(5n), { shape: [4, 16] });
    await finite(await system(memorySource(tinyModel()), constant));
    const even = changed(
      "model.layers.1.mlp.gate_proj.weight",
      (matrix) => void (matrix.data as Float32Array).fill(0.25, 16, 48),
    );
    await finite(await system(memorySource(even), windows));
  });

  test("copes with inputs that are fewer than channels, whose Hessian is singular", async () => {
    const few = randomWindows(23, 1, 3);
    const { reports, ...model } = await system(memorySource(tinyModel()), few);
    await finite({ reports, ...model });
    const notes = reports.flatMap((report) => report.notes);
    // What inverts nothing, or adds to the diagonal before it does, has nothing to say of it.
    const raised = "the Hessian is singular: its damping was raised from 0 to 0.0001";
    expect(notes.includes(raised)).toBe(name === "SVD-LLM");
  });

  test("copes with widths that blocks do not divide", async () => {
    const model = tinyModel({ hidden_size: 20, intermediate_size: 44, num_attention_heads: 2, num_key_value_heads: 1 });
    await finite(await system(memorySource(model), windows));
  });

  test.each(["model.layers.1.mlp.up_proj.weight", "model.layers.0.input_layernorm.weight"])(
    "refuses a weight that is NaN, by name: %s",
    async (tensor) => {
      const damaged = changed(tensor, (values) => values.set(7, Number.NaN));
      await expect(system(memorySource(damaged), windows)).rejects.toThrow(
        `"${tensor}" holds NaN at entry 7; the model is damaged`,
      );
    },
  );
});

test.each(["Wanda", "SparseGPT"])("%s refuses rows that do not divide into groups, by name", async (name) => {
  const model = tinyModel({ intermediate_size: 22 });
  await expect(systems[name]!(memorySource(model), windows)).rejects.toThrow(
    'the rows of "model.layers.0.mlp.down_proj.weight" have 22 entries, which do not divide into groups of 4; prune it without groups or leave it out',
  );
});

test("SVD-LLM refuses a share that leaves no rank, by name", async () => {
  const source = memorySource(tinyModel());
  const run = through(source, whitenedSvd({ ratio: 0.05 }), windows);
  await expect(run).rejects.toThrow('a share of 0.05 of "model.layers.0.self_attn.q_proj.weight" [16, 16] has too few');
});

test("gains are not folded where they are not finite", async () => {
  const damaged = changed("model.norm.weight", (gain) => gain.set(3, Number.POSITIVE_INFINITY));
  await expect(foldGains(memorySource(damaged)).read("lm_head.weight")).rejects.toThrow(
    '"model.norm.weight" holds Infinity at entry 3; the model is damaged',
  );
});
