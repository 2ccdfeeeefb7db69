import { DecoderSession } from "../../../generate/index.ts";
import { type DecoderConfig, initDecoder } from "../../../models/index.ts";
import type { DeviceOptions } from "../../../runtime/index.ts";
import { Rng } from "../../../tensor/index.ts";
import { type Architecture, architectureConfig } from "./architecture.ts";
import { interleavedTimings, type TimingOptions } from "./timings.ts";

export interface Latency {
  /** Time to the first token: from the prompt to the logits behind it, in milliseconds. */
  readonly ttftMs: number;
  /** Tokens a second behind the prompt. */
  readonly decodeTokS: number;
}

/** Measures architectures on the device that a model is made for. */
export interface LatencyProbe {
  /** @returns null for those that could not be measured */
  measure(architectures: readonly Architecture[], signal?: AbortSignal): Promise<(Latency | null)[]>;
}

export interface SessionProbeOptions extends DeviceOptions, Omit<TimingOptions, "longest" | "signal"> {
  readonly backbone: DecoderConfig;
  readonly window: number;
  readonly promptTokens: number;
  /** Tokens that are decoded behind the prompt. Default 8. */
  readonly decodeTokens?: number;
  /** Milliseconds after which a run counts as failed. Default a minute. */
  readonly timeoutMs?: number;
  /**
   * What tells the time, in milliseconds: by default the clock on the wall. The time that this process spent computing
   * (`processorClock`, with one thread) leaves out turns that other programs had.
   */
  readonly clock?: () => number;
  /** Architectures that are open at once and timed in turns. Default 8. */
  readonly group?: number;
  readonly onMeasured?: (done: number, total: number) => void;
}

/** Measures through the runtime itself, with random weights, which take as long as any others. */
export function sessionProbe(options: SessionProbeOptions): LatencyProbe {
  const { group = 8, onMeasured } = options;
  return {
    async measure(architectures, signal) {
      const found: (Latency | null)[] = [];
      // The first program of a process pays for what later ones find done.
      for (let first = 0; first < architectures.length; first += group) {
        found.push(...(await measureGroup(architectures.slice(first, first + group), options, signal)));
        onMeasured?.(found.length, architectures.length);
      }
      return found;
    },
  };
}

async function measureGroup(
  architectures: readonly Architecture[],
  options: SessionProbeOptions,
  signal: AbortSignal | undefined,
): Promise<(Latency | null)[]> {
  const { backbone, window, promptTokens, decodeTokens = 8, clock = () => performance.now() } = options;
  const sessions: DecoderSession[] = [];
  try {
    for (const architecture of architectures) {
      const config: DecoderConfig = {
        ...architectureConfig(backbone, architecture, window),
        maxPositions: Math.max(backbone.maxPositions, promptTokens + decodeTokens),
      };
      sessions.push(await DecoderSession.open(config, initDecoder(config, new Rng(0)), options));
    }
    const rng = new Rng(1);
    const prompt = rng.integers(promptTokens, backbone.vocab);
    const further = rng.integers(decodeTokens, backbone.vocab);
    const tasks = sessions.map((session) => async () => {
      session.truncate(0);
      const began = clock();
      await session.advance(prompt);
      const first = clock();
      for (const id of further) await session.advance([id]);
      return [first - began, (clock() - first) / decodeTokens];
    });
    const timings = await interleavedTimings(tasks, {
      ...options,
      longest: options.timeoutMs ?? 60_000,
      signal,
    });
    return timings.map((timing) => {
      if (!timing) return null;
      const [ttftMs, tokenMs] = timing.values as [number, number];
      return { ttftMs, decodeTokS: 1000 / tokenMs };
    });
  } finally {
    for (const session of sessions) await session.dispose();
  }
}
