import type { Participant } from "../harness.ts";
import { contexts, decodedTokens, type Precision } from "./shapes.ts";

/** A program that runs a decoder. */
export interface Engine {
  /** Loads the model; it can answer when this is done. */
  open(): Promise<void>;
  /** Reads `tokens` into an empty context. @returns the likeliest token behind them */
  read(tokens: readonly number[]): Promise<number>;
  /**
   * Decodes greedily behind what was read last: reads `token`, chooses the likeliest, reads that, and so on until
   * `count` are read. The context is then as it was.
   * @returns the chosen tokens
   */
  decode(token: number, count: number): Promise<number[]>;
  close(): Promise<void>;
  /** Bytes of the weights, which are all read for each token: the models' embedding tables are their heads. */
  weightBytes(): Promise<number>;
}

/** What an engine opens. */
export interface EngineModel {
  /** Folder of the model as Hugging Face lays it out, with `onnx` and `gguf` in it. */
  readonly folder: string;
  readonly precision: Precision;
}

/** What an engine's module is told. */
export interface EngineSettings extends EngineModel {
  readonly prompt: readonly number[];
}

/** Works of a participant; decoding has the length of its context behind it. */
export const works: readonly string[] = ["prefill", ...contexts.map((length) => `decode${length}`)];

/**
 * An engine in the bench. A step of `prefill` reads the whole prompt; one of `decode32` decodes behind the first 32
 * tokens of it. Both return the first token that the model chose.
 */
export function participant(engine: Engine, { prompt }: EngineSettings): Participant {
  let next = 0;
  return {
    setup: () => engine.open(),
    async begin(work) {
      if (work !== "prefill") next = await engine.read(prompt.slice(0, Number(work.slice("decode".length))));
    },
    async step(work) {
      if (work === "prefill") return await engine.read(prompt);
      return (await engine.decode(next, decodedTokens))[0]!;
    },
    dispose: () => engine.close(),
    figures: async () => ({ weightBytes: await engine.weightBytes() }),
  };
}

/** The place of the largest value. */
export function largest(values: ArrayLike<number>): number {
  let best = 0;
  for (let i = 1; i < values.length; i++) if (values[i]! > values[best]!) best = i;
  return best;
}
