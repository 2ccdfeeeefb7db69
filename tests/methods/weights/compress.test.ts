import { mkdtemp, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { setFlagsFromString } from "node:v8";
import { runInNewContext } from "node:vm";
import { describe, expect, test } from "vitest";
import {
  type CompressedPart,
  compressDecoder,
  compressParts,
  type DecoderSource,
  HiddenStates,
  type InputStatistics,
  type MatrixMethod,
  matrixNames,
  memorySource,
  planFor,
  weightErrors,
} from "../../../src/methods/index.ts";
import { compressionFolder } from "../../../src/methods/node.ts";
import { decode, decoderShapes, type Weights } from "../../../src/models/index.ts";
import { capture, Dense, Weight } from "../../../src/nn/index.ts";
import { compile, openSessions } from "../../../src/runtime/index.ts";
import { HostTensor, Rng, type Tensor } from "../../../src/tensor/index.ts";
import { tinyModel } from "../../generate/models.ts";
import { coarse, identity, randomWindows } from "./methods.ts";

const device = { threads: 1 };
const model = tinyModel();
const windows = randomWindows(model.config.vocab, 6, 10);
const all = (method: MatrixMethod | null) => planFor(model.config, { layers: method, embedding: method, head: method });

const numbers = (w: Weight | unknown): number[] =>
  ((w instanceof Weight ? (w as Dense).values : w) as HostTensor).toArray();

/** What a plain forward pass has at its points, by name. */
async function forward(weights: Weights, ids: HostTensor): Promise<Record<string, HostTensor>> {
  const program = await compile(
    (batch) =>
      capture(
        () => true,
        () => decode(model.config, weights, batch),
      ).captured as Record<string, Tensor>,
    [ids] as const,
    device,
  );
  try {
    return await program(ids);
  } finally {
    await program.dispose();
  }
}

function expectClose(actual: HostTensor, expected: HostTensor, tolerance = 2e-5): void {
  const worst = Math.max(...actual.toArray().map((v, i) => Math.abs(v - expected.at(i))));
  expect(worst).toBeLessThan(tolerance);
}

describe("the driver", () => {
  test("with a method that changes nothing gives the same model, every matrix reported", async () => {
    const before = openSessions();
    const { weights, reports } = await compressDecoder(memorySource(model), all(identity), windows, device);
    expect(Object.keys(weights).sort()).toEqual([...decoderShapes(model.config).keys()].sort());
    for (const [name, weight] of Object.entries(weights)) expect(numbers(weight)).toEqual(numbers(model.weights[name]));
    expect(reports.map(({ name }) => name)).toEqual(matrixNames(model.config));
    for (const { name, outputError, weightError, bitsPerWeight } of reports) {
      expect([weightError, bitsPerWeight]).toEqual([0, 32]);
      expect(outputError).toBe(name === "model.embed_tokens.weight" ? null : 0);
    }
    expect(openSessions()).toBe(before);
  });

  test("gives methods the statistics of the inputs that a plain forward pass has", async () => {
    const seen = new Map<string, InputStatistics>();
    const watch: MatrixMethod = {
      ...identity,
      async compress(job) {
        if (job.inputs) seen.set(job.name, job.inputs);
        return identity.compress(job);
      },
    };
    await compressDecoder(memorySource(model), all(watch), windows, device);
    const points = await forward(model.weights, windows);
    expect([...seen.keys()]).toEqual(matrixNames(model.config).slice(1));
    for (const { point, count, gram, absMean, absMax } of seen.values()) {
      const x = points[point]!;
      const width = x.shape[2]!;
      expect(count).toBe(60);
      const rows = Array.from({ length: count }, (_, r) => x.toArray().slice(r * width, (r + 1) * width));
      for (const [i, j] of [
        [0, 0],
        [3, 7],
        [7, 3],
        [width - 1, 2],
      ] as const)
        expect(gram.at(i * width + j)).toBeCloseTo(
          rows.reduce((s, row) => s + row[i]! * row[j]!, 0),
          3,
        );
      expect(absMean.at(5)).toBeCloseTo(rows.reduce((s, row) => s + Math.abs(row[5]!), 0) / count, 5);
      expect(absMax.at(5)).toBeCloseTo(Math.max(...rows.map((row) => Math.abs(row[5]!))), 5);
    }
    expect(seen.get("model.layers.1.self_attn.o_proj.weight")!.point).toBe("model.layers.1.attn.mix");
    expect(seen.get("lm_head.weight")!.point).toBe("model.norm");
  });

  test("calibrates a layer on what the compressed layers before it give", async () => {
    const method = coarse(0.25);
    let gram: HostTensor | undefined;
    const watch: MatrixMethod = {
      ...method,
      async compress(job) {
        if (job.name === "model.layers.1.mlp.down_proj.weight") gram = job.inputs!.gram;
        return method.compress(job);
      },
    };
    const { weights } = await compressDecoder(memorySource(model), all(watch), windows, device);
    // Layer 1 itself was not compressed yet when its inputs were seen.
    const mixed = Object.fromEntries(
      Object.keys(weights).map((name) => [name, /embed|layers\.0/.test(name) ? weights[name]! : model.weights[name]!]),
    );
    const x = (await forward(mixed, windows))["model.layers.1.mlp.act"]!;
    const [width, values] = [x.shape[2]!, x.toArray()];
    for (let i = 0; i < width; i++) {
      let expected = 0;
      for (let r = 0; r < 60; r++) expected += values[r * width + i]! * values[r * width + 2]!;
      expect(Math.abs(gram!.at(i * width + 2) - expected)).toBeLessThan(
        1e-4 * Math.abs(gram!.at(2 * width + 2)) + 1e-4,
      );
    }
  });

  test("follows the plain forward pass through hidden states, sliding windows and norms of every kind", async () => {
    const { config, weights } = tinyModel({
      model_type: "gemma3_text",
      head_dim: 4,
      sliding_window: 4,
      sliding_window_pattern: 2,
      query_pre_attn_scalar: 4,
      hidden_activation: "gelu_pytorch_tanh",
      num_hidden_layers: 3,
    });
    const program = await compile(
      (ids) =>
        capture(
          (name) => name.endsWith("1.out"),
          () => decode(config, weights, ids),
        ).captured as Record<string, Tensor>,
      [windows] as const,
      device,
    );
    const expected = (await program(windows))["model.layers.1.out"]!;
    await program.dispose();
    const hidden = new HiddenStates(config, [6, 10], device);
    await hidden.embed(weights["model.embed_tokens.weight"] as Weight, windows);
    for (const layer of [0, 1]) await hidden.advance(layer, weights);
    expectClose(hidden.values, expected, 1e-3);
    await hidden[Symbol.asyncDispose]();
  });

  test("runs layers of one form in one session", async () => {
    const hidden = new HiddenStates(model.config, [6, 10], device);
    await hidden.embed(model.weights["model.embed_tokens.weight"] as Weight, windows);
    await hidden.advance(0, model.weights);
    const open = openSessions();
    await hidden.advance(1, model.weights);
    expect(openSessions()).toBe(open);
    await hidden[Symbol.asyncDispose]();
    expect(openSessions()).toBe(open - 1);
  });

  test("a tied embedding is calibrated as the head that it is, or compressed first without calibration", async () => {
    const tied = tinyModel({ tie_word_embeddings: true });
    const plan = (method: MatrixMethod) => planFor(tied.config, { layers: null, embedding: method });
    const parts = async (method: MatrixMethod): Promise<CompressedPart[]> => {
      const found: CompressedPart[] = [];
      for await (const part of compressParts(memorySource(tied), plan(method), windows, device)) found.push(part);
      return found;
    };
    const late = await parts(coarse(0.25, true));
    expect(Object.keys(late[0]!.weights)).toEqual([]);
    expect(late.at(-1)!.reports.map(({ name, outputError }) => [name, outputError !== null])).toEqual([
      ["model.embed_tokens.weight", true],
    ]);
    const early = await parts(coarse(0.25));
    expect(Object.keys(early[0]!.weights)).toEqual(["model.embed_tokens.weight"]);
    expect(Object.keys(early.at(-1)!.weights)).toEqual(["model.norm.weight"]);
  });

  test("holds little more than the layer in work", async () => {
    setFlagsFromString("--expose-gc");
    const collect = runInNewContext("gc") as () => void;
    const deep = tinyModel({ num_hidden_layers: 8, hidden_size: 32 });
    const alive: WeakRef<HostTensor>[] = [];
    let most = 0;
    const source: DecoderSource = {
      config: deep.config,
      async read(name) {
        await new Promise((resolve) => setImmediate(resolve));
        collect();
        most = Math.max(most, alive.filter((ref) => ref.deref()).length);
        const original = deep.weights[name]!;
        const copy = ((original instanceof Weight ? (original as Dense).values : original) as HostTensor).clone();
        alive.push(new WeakRef(copy));
        return copy.shape.length === 2 ? new Dense(copy) : copy;
      },
    };
    let parts = 0;
    const plan = planFor(deep.config, { layers: coarse(0.25) });
    for await (const part of compressParts(source, plan, randomWindows(23, 2, 8), device))
      parts += Math.sign(part.index + 1);
    expect(parts).toBe(10);
    expect(alive.length).toBe(8 * 9 + 3);
    // Nine tensors make a layer.
    expect(most).toBeLessThanOrEqual(2 * 9 + 1);
  }, 120_000);

  test("counts progress, and the time that is left falls to nothing", async () => {
    const seen: { done: number; total: number; remaining: number }[] = [];
    await compressDecoder(memorySource(model), all(identity), windows, {
      ...device,
      onProgress: (progress) => seen.push(progress),
    });
    expect(seen.map(({ done }) => done)).toEqual(Array.from({ length: 16 }, (_, i) => i + 1));
    expect(new Set(seen.map(({ total }) => total))).toEqual(new Set([16]));
    expect(seen[0]!.remaining).toBeGreaterThan(0);
    expect(seen.at(-1)!.remaining).toBe(0);
  });
});

describe("stopping and going on", () => {
  const noisy: MatrixMethod = {
    name: "noisy",
    calibrated: false,
    compress: async ({ weight, rng, inputs }) =>
      new Dense(
        new HostTensor(
          "f32",
          weight.shape,
          (weight.data as Float32Array).map(
            (v) => v + rng.normal(0, 0.01) * (inputs ? Math.tanh(inputs.gram.at(0)) : 1),
          ),
        ),
      ),
  };

  test("a run stopped at any part goes on with the same numbers", async () => {
    const folder = await mkdtemp(join(tmpdir(), "pare-compress-"));
    try {
      const whole = await compressDecoder(memorySource(model), all(noisy), windows, { ...device, seed: 5 });
      const weights: Record<string, unknown> = {};
      let lives = 1;
      for (; lives < 10; lives++) {
        const controller = new AbortController();
        let done = 0;
        const parts = compressParts(memorySource(model), all(noisy), windows, {
          ...device,
          seed: 5,
          state: compressionFolder(folder),
          signal: controller.signal,
          onProgress: () => {
            if (++done === 7) controller.abort();
          },
        });
        try {
          for await (const part of parts) Object.assign(weights, part.weights);
          break;
        } catch (error) {
          expect((error as Error).name).toBe("AbortError");
        }
      }
      expect(lives).toBe(4);
      expect(Object.keys(weights).sort()).toEqual(Object.keys(whole.weights).sort());
      for (const [name, weight] of Object.entries(weights))
        expect(numbers(weight)).toEqual(numbers(whole.weights[name]));

      const other = compressParts(memorySource(model), all(noisy), windows, {
        ...device,
        seed: 6,
        state: compressionFolder(folder),
      });
      await expect(other.next()).rejects.toThrow("the saved state belongs to another run");
    } finally {
      await rm(folder, { recursive: true });
    }
  }, 120_000);

  test("a run that is done does nothing again", async () => {
    const folder = await mkdtemp(join(tmpdir(), "pare-compress-"));
    try {
      const options = { ...device, state: compressionFolder(folder) };
      const counts: number[] = [];
      for (let i = 0; i < 2; i++) {
        let parts = 0;
        for await (const part of compressParts(memorySource(model), all(null), windows, options))
          parts += part.reports.length + 1;
        counts.push(parts);
      }
      expect(counts).toEqual([4, 0]);
    } finally {
      await rm(folder, { recursive: true });
    }
  });
});

describe("refuses", () => {
  const broken = (name: string, value: number): Weights => {
    const tensor = ((w) => (w instanceof Weight ? (w as Dense).values : w))(model.weights[name]!) as HostTensor;
    const copy = tensor.clone();
    copy.set(7, value);
    return { ...model.weights, [name]: copy.shape.length === 2 ? new Dense(copy) : copy };
  };

  test.each(["model.layers.1.mlp.up_proj.weight", "model.layers.0.input_layernorm.weight"])(
    "weights that are not finite, by name: %s",
    async (name) => {
      const source = memorySource({ ...model, weights: broken(name, Number.NaN) });
      await expect(compressDecoder(source, all(identity), windows, device)).rejects.toThrow(
        `"${name}" holds NaN at entry 7; the model is damaged`,
      );
    },
  );

  test("activations that are not finite, by point and channel", async () => {
    const source = memorySource({ ...model, weights: broken("model.layers.0.input_layernorm.weight", 3e38) });
    await expect(compressDecoder(source, all(identity), windows, device)).rejects.toThrow(
      /channel \d+ of the activations at "model.layers.0.attn/,
    );
  });

  test("windows that are none, and tokens that the model does not have", async () => {
    const run = (w: HostTensor) => compressDecoder(memorySource(model), all(identity), w, device);
    await expect(run(HostTensor.zeros("f32", [2, 3]))).rejects.toThrow(
      "calibration windows are i64 [windows, seq], not f32 [2, 3]",
    );
    await expect(run(HostTensor.zeros("i64", [0, 3]))).rejects.toThrow("not i64 [0, 3]");
    await expect(run(randomWindows(99, 4, 10))).rejects.toThrow(/hold token \d+, but the model has 23 tokens/);
  });

  test("a calibrated method for an embedding that is only looked up", async () => {
    await expect(compressDecoder(memorySource(model), all(coarse(0.1, true)), windows, device)).rejects.toThrow(
      'but "model.embed_tokens.weight" is only looked up',
    );
  });

  test("an exception of the plan that fits nothing", () => {
    expect(() => planFor(model.config, { layers: identity, except: { "model.layer.*.mlp": null } })).toThrow(
      '"model.layer.*.mlp" fits no matrix of the model; they are named like model.layers.0.self_attn.q_proj.weight',
    );
  });
});

test("a plan chooses by kind, and the last exception that fits counts", () => {
  const [a, b, c] = [coarse(1), coarse(2), coarse(3)];
  const plan = planFor(model.config, {
    layers: a,
    head: b,
    except: { "model.layers.0.*.*.weight": null, "*.*.*.mlp.down_proj.weight": c },
  });
  expect(plan("model.embed_tokens.weight")).toBe(null);
  expect(plan("lm_head.weight")).toBe(b);
  expect(plan("model.layers.0.mlp.up_proj.weight")).toBe(null);
  expect(plan("model.layers.0.mlp.down_proj.weight")).toBe(c);
  expect(plan("model.layers.1.mlp.up_proj.weight")).toBe(a);
  expect(plan("model.layers.1.input_layernorm.weight")).toBe(null);
});

test("errors of a matrix agree with its inputs multiplied out", async () => {
  const rng = new Rng(4);
  const x = rng.normalTensor([30, 7]);
  const w = rng.normalTensor([5, 7]);
  const off = new HostTensor(
    "f32",
    [5, 7],
    (w.data as Float32Array).map((v) => Math.round(v * 2) / 2),
  );
  const gram = HostTensor.zeros("f32", [7, 7]);
  for (let i = 0; i < 7; i++)
    for (let j = 0; j < 7; j++)
      gram.set(
        i * 7 + j,
        Array.from({ length: 30 }, (_, r) => x.at(r * 7 + i) * x.at(r * 7 + j)).reduce((a, b) => a + b),
      );
  const energy = (m: (k: number) => number): number => {
    let total = 0;
    for (let r = 0; r < 30; r++)
      for (let o = 0; o < 5; o++) {
        let y = 0;
        for (let i = 0; i < 7; i++) y += x.at(r * 7 + i) * m(o * 7 + i);
        total += y * y;
      }
    return total;
  };
  const { outputError, weightError } = await weightErrors(w, new Dense(off), gram, device);
  expect(outputError).toBeCloseTo(Math.sqrt(energy((k) => w.at(k) - off.at(k)) / energy((k) => w.at(k))), 5);
  const square = (m: (k: number) => number): number =>
    Array.from({ length: 35 }, (_, k) => m(k) ** 2).reduce((a, b) => a + b);
  expect(weightError).toBeCloseTo(Math.sqrt(square((k) => w.at(k) - off.at(k)) / square((k) => w.at(k))), 6);
});
