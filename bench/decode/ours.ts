import { DecoderSession } from "../../src/generate/index.ts";
import { openModel } from "../../src/models/node.ts";
import type { Weight } from "../../src/nn/index.ts";
import type { HostTensor } from "../../src/tensor/index.ts";
import type { Participant } from "../harness.ts";
import { type Engine, type EngineModel, type EngineSettings, largest, participant } from "./engine.ts";
import { quantized } from "./weights.ts";

export function create(threads: number, settings: unknown): Participant {
  const given = settings as EngineSettings;
  return participant(new Ours(given, threads), given);
}

/** pare's own decoding: a session on onnxruntime's native CPU device. */
export class Ours implements Engine {
  readonly #model: EngineModel;
  readonly #threads: number;
  #session: DecoderSession | undefined;
  #bytes = 0;

  constructor(model: EngineModel, threads: number) {
    this.#model = model;
    this.#threads = threads;
  }

  async open(): Promise<void> {
    const { folder, precision } = this.#model;
    await using model = await openModel(folder);
    const weights = quantized(model.weights, precision);
    this.#session = await DecoderSession.open(model.config, weights, { threads: this.#threads, spin: true });
    this.#bytes = Object.values(weights).reduce((sum, t) => sum + (t as Weight | HostTensor).bytes, 0);
  }

  async read(tokens: readonly number[]): Promise<number> {
    this.#session!.truncate(0);
    return largest(await this.#session!.advance(tokens));
  }

  async decode(token: number, count: number): Promise<number[]> {
    const session = this.#session!;
    const { length } = session;
    const chosen: number[] = [];
    for (let next = token; chosen.length < count; chosen.push(next)) next = largest(await session.advance([next]));
    session.truncate(length);
    return chosen;
  }

  close(): Promise<void> {
    return this.#session!.dispose();
  }

  async weightBytes(): Promise<number> {
    return this.#bytes;
  }
}
