import { execFile } from "node:child_process";
import { fileURLToPath } from "node:url";
import { promisify } from "node:util";
import { PareError } from "../tensor/index.ts";
import type { Variant } from "./report.ts";

const pare = fileURLToPath(new URL("../../bin/pare.js", import.meta.url));

/** A model that could not be run to be measured. */
export class ProbeError extends PareError {
  override readonly code = "PROBE";
}

export interface ProbeOptions {
  /** Read before the first token; some hundreds of tokens, so that the rate of reading means something. */
  readonly prompt: string;
  /** Default 64. */
  readonly tokens?: number;
  readonly threads?: number;
  readonly signal?: AbortSignal;
}

/** What `pare run --json` prints of its work. */
interface Run {
  readonly loadSeconds: number;
  readonly peakBytes: number;
  readonly secondsToFirstToken: number;
  readonly tokensPerSecond: number | null;
  readonly usage: { readonly promptTokens: number };
}

/**
 * Runs a saved model in a process of its own, as a user would, and takes its times and memory from there.
 * @param model as `pare run` takes it
 * @throws ProbeError with what that process said
 */
export async function probe(
  model: string,
  { prompt, tokens = 64, threads, signal }: ProbeOptions,
): Promise<Pick<Variant, "speed" | "peakBytes" | "loadSeconds">> {
  const options = ["--json", "--raw", "--temperature", "0", "--max-tokens", `${tokens}`];
  const words = ["run", model, "--prompt", prompt, ...options, ...(threads ? ["--threads", `${threads}`] : [])];
  const limits = { maxBuffer: 2 ** 26, ...(signal && { signal }) };
  const { stdout } = await promisify(execFile)(process.execPath, [pare, ...words], limits).catch((error: unknown) => {
    signal?.throwIfAborted();
    const said = String((error as { stderr?: string }).stderr ?? error).trim();
    throw new ProbeError(`${model} could not be run to measure its speed: ${said}`);
  });
  const run = JSON.parse(stdout) as Run;
  return {
    speed:
      run.tokensPerSecond === null
        ? null
        : {
            prefill: run.usage.promptTokens / run.secondsToFirstToken,
            decode: run.tokensPerSecond,
          },
    peakBytes: run.peakBytes,
    loadSeconds: run.loadSeconds,
  };
}
