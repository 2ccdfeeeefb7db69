import { mkdir } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { type Command, UsageError } from "../command.ts";
import { compare, type Entry, type Measured, median } from "../harness.ts";
import { heading, loadAverages, machine } from "../report.ts";
import { checkpoint, type MergeSettings, type MergeShape } from "./files.ts";

/** ParamΔ of three checkpoints on disk, beside a plain copy of the same bytes. */
export const merge: Command = {
  options: { shard: "128", shards: "3", work: join(tmpdir(), "pare-bench") },
  async run({ rounds, threads, options, log }) {
    const { work } = options as { work: string };
    const shape = { shardMib: whole("shard", options, 8), shards: whole("shards", options, 1) };
    const load = loadAverages();
    await mkdir(work, { recursive: true });
    log("making checkpoints");
    const [base, post, newBase] = [
      await checkpoint(work, shape, "base"),
      await checkpoint(work, shape, "post"),
      await checkpoint(work, shape, "new-base"),
    ];
    const entry = (name: string): Entry => {
      const settings: MergeSettings = { base, post, newBase, out: join(work, `merged-${name}`) };
      return { name, module: `./merge/${name === "pare" ? "ours" : name}.ts`, settings };
    };
    const measured = await compare([entry("pare"), entry("copy")], { rounds, threads, seconds: 1, log });
    const result = summarize(shape, measured, load);
    return { result, text: table(result) };
  },
};

function whole(option: string, options: Readonly<Record<string, string>>, of: number): number {
  const value = Number(options[option]);
  if (Number.isInteger(value) && value > 0 && value % of === 0) return value;
  throw new UsageError(`--${option} takes a multiple of ${of}, not ${options[option]}`);
}

interface Side {
  /** Read and written together. */
  readonly bytesPerSecond: number;
  readonly cpuSeconds: number;
  readonly peakBytes: number;
}

interface MergeResult {
  readonly name: "merge";
  readonly machine: ReturnType<typeof machine>;
  readonly load: readonly number[];
  readonly shardBytes: number;
  readonly movedBytes: number;
  readonly ours: Side;
  readonly copy: Side;
  /** Ours over the copy in bytes a second; the peak of memory over the bytes of a shard. */
  readonly ratios: { readonly copy: number; readonly peakShards: number };
}

/** @throws Error when the two did not write the same number of bytes of weights */
export function summarize(
  { shardMib, shards }: MergeShape,
  { pare, copy }: Readonly<Record<string, Measured>>,
  load: readonly number[],
): MergeResult {
  const shardBytes = shardMib * 2 ** 20;
  const written = new Set([...pare!.values, ...copy!.values].map((bytes) => Math.floor(bytes / 2 ** 20)));
  if (written.size > 1) throw new Error(`not all wrote the same: ${[...written].join(", ")} MiB`);
  // Three checkpoints are read and one is written.
  const movedBytes = 4 * shards * shardBytes;
  const side = ({ stepSeconds, cpuSeconds, peakBytes }: Measured): Side => ({
    bytesPerSecond: movedBytes / median(stepSeconds),
    cpuSeconds: median(cpuSeconds),
    peakBytes,
  });
  const [ours, plain] = [side(pare!), side(copy!)];
  return {
    name: "merge",
    machine: machine(),
    load,
    shardBytes,
    movedBytes,
    ours,
    copy: plain,
    ratios: { copy: ours.bytesPerSecond / plain.bytesPerSecond, peakShards: ours.peakBytes / shardBytes },
  };
}

function table({ machine, load, movedBytes, ours, copy, ratios }: MergeResult): string {
  const row = (name: string, { bytesPerSecond, cpuSeconds, peakBytes }: Side): string =>
    `${name.padEnd(6)}${(bytesPerSecond / 1e6).toFixed(0).padStart(6)} MB/s  ${cpuSeconds.toFixed(2)} s of processor time  peak ${(peakBytes / 2 ** 20).toFixed(0)} MiB`;
  return [
    ...heading("merge", machine, load),
    "",
    `${(movedBytes / 2 ** 20).toFixed(0)} MiB read and written`,
    row("pare", ours),
    row("copy", copy),
    `${(100 * ratios.copy).toFixed(0)}% of the copy's speed; the peak is that of ${ratios.peakShards.toFixed(2)} shards`,
  ].join("\n");
}
