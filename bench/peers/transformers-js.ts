import { stat } from "node:fs/promises";
import { AutoModelForCausalLM, env, type PreTrainedModel, Tensor } from "@huggingface/transformers";
import { type Engine, type EngineModel, type EngineSettings, largest, participant } from "../decode/engine.ts";
import { filesOf } from "../decode/files.ts";
import { precisions } from "../decode/shapes.ts";
import type { Participant } from "../harness.ts";

export function create(threads: number, settings: unknown): Participant {
  const given = settings as EngineSettings;
  return participant(new TransformersJs(given, threads), given);
}

/** Names of a step's outputs that its next step takes as inputs, and theirs. */
const isPresent = (name: string): boolean => name.startsWith("present.");
const asPast = (name: string): string => name.replace("present", "past_key_values");

/** transformers.js on onnxruntime-node. Its models are called one by one: `generate` does more than greedy choice needs. */
export class TransformersJs implements Engine {
  readonly #settings: EngineModel;
  readonly #threads: number;
  #model: PreTrainedModel | undefined;
  /** Keys and values of what was read last. */
  #past: Record<string, Tensor> | null = null;
  #length = 0;

  constructor(settings: EngineModel, threads: number) {
    this.#settings = settings;
    this.#threads = threads;
  }

  async open(): Promise<void> {
    const { folder, precision } = this.#settings;
    env.allowRemoteModels = false;
    this.#model = await AutoModelForCausalLM.from_pretrained(folder, {
      local_files_only: true,
      device: "cpu",
      dtype: precisions[precision].onnx.dtype,
      use_external_data_format: true,
      session_options: {
        intraOpNumThreads: this.#threads,
        graphOptimizationLevel: "all",
        extra: { session: { intra_op: { allow_spinning: "1" } } },
      },
    });
  }

  async read(tokens: readonly number[]): Promise<number> {
    const { token, past } = await this.#forward(tokens, 0, null);
    this.#past = past;
    this.#length = tokens.length;
    return token;
  }

  async decode(token: number, count: number): Promise<number[]> {
    const chosen: number[] = [];
    let [next, past] = [token, this.#past];
    while (chosen.length < count) {
      ({ token: next, past } = await this.#forward([next], this.#length + chosen.length, past));
      chosen.push(next);
    }
    return chosen;
  }

  async close(): Promise<void> {
    await this.#model!.dispose();
  }

  async weightBytes(): Promise<number> {
    const { folder, precision } = this.#settings;
    return (await stat(`${filesOf(folder, precision).onnx}_data`)).size;
  }

  /** Reads `tokens` from position `start` on, behind `past`. */
  async #forward(
    tokens: readonly number[],
    start: number,
    past: Record<string, Tensor> | null,
  ): Promise<{ token: number; past: Record<string, Tensor> }> {
    const row = (length: number, value: (i: number) => number): Tensor =>
      new Tensor(
        "int64",
        BigInt64Array.from({ length }, (_, i) => BigInt(value(i))),
        [1, length],
      );
    const outputs: Record<string, Tensor> = await this.#model!.forward({
      input_ids: row(tokens.length, (i) => tokens[i]!),
      attention_mask: row(start + tokens.length, () => 1),
      position_ids: row(tokens.length, (i) => start + i),
      past_key_values: past,
    });
    const present = Object.entries(outputs).filter(([name]) => isPresent(name));
    return {
      token: largest(outputs.logits!.data as Float32Array),
      past: Object.fromEntries(present.map(([name, tensor]) => [asPast(name), tensor])),
    };
  }
}
