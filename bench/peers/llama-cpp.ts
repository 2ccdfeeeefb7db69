import {
  getLlama,
  type Llama,
  type LlamaContextSequence,
  LlamaLogLevel,
  type LlamaModel,
  type Token,
} from "node-llama-cpp";
import { openGguf } from "../../src/formats/node.ts";
import { type Engine, type EngineModel, type EngineSettings, participant } from "../decode/engine.ts";
import { filesOf } from "../decode/files.ts";
import { positions, promptTokens } from "../decode/shapes.ts";
import type { Participant } from "../harness.ts";

export function create(threads: number, settings: unknown): Participant {
  const given = settings as EngineSettings;
  return participant(new LlamaCpp(given, threads), given);
}

/** llama.cpp through node-llama-cpp, choosing tokens natively. */
export class LlamaCpp implements Engine {
  readonly #path: string;
  readonly #threads: number;
  #llama: Llama | undefined;
  #model: LlamaModel | undefined;
  #sequence: LlamaContextSequence | undefined;

  constructor({ folder, precision }: EngineModel, threads: number) {
    this.#path = filesOf(folder, precision).gguf;
    this.#threads = threads;
  }

  async open(): Promise<void> {
    const threads = this.#threads;
    this.#llama = await getLlama({ gpu: false, build: "never", maxThreads: threads, logLevel: LlamaLogLevel.error });
    this.#model = await this.#llama.loadModel({ modelPath: this.#path });
    const context = await this.#model.createContext({
      contextSize: positions,
      batchSize: promptTokens,
      threads: { ideal: threads, min: threads },
      flashAttention: true,
    });
    this.#sequence = context.getSequence();
  }

  async read(tokens: readonly number[]): Promise<number> {
    await this.#cut(0);
    return (await this.#generate(tokens, 1))[0]!;
  }

  async decode(token: number, count: number): Promise<number[]> {
    const length = this.#sequence!.nextTokenIndex;
    const chosen = await this.#generate([token], count);
    await this.#cut(length);
    return chosen;
  }

  async close(): Promise<void> {
    await this.#llama!.dispose();
  }

  async weightBytes(): Promise<number> {
    await using file = await openGguf(this.#path);
    return Array.from(file.tensors.values()).reduce((sum, { bytes }) => sum + bytes, 0);
  }

  /** Reads `tokens` and what is chosen behind them, up to `count` choices; the last is not read. */
  async #generate(tokens: readonly number[], count: number): Promise<number[]> {
    const chosen: number[] = [];
    for await (const token of this.#sequence!.evaluate(tokens as Token[], { temperature: 0, yieldEogToken: true })) {
      if (chosen.push(token) === count) break;
    }
    return chosen;
  }

  async #cut(length: number): Promise<void> {
    const end = this.#sequence!.nextTokenIndex;
    if (end > length) await this.#sequence!.eraseContextTokenRanges([{ start: length, end }]);
  }
}
