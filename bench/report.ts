import os from "node:os";
import type { Command } from "./command.ts";
import { compare, type Entry, type Measured, median } from "./harness.ts";
import { productFlops } from "./matmul.ts";

/** What a bench measures: the same work done by this engine and by its peers, beside a plain matrix product. */
export interface Bench {
  readonly name: string;
  readonly ours: Entry;
  readonly peers: readonly Entry[];
  /** Tokens that one step handles. */
  readonly tokens: number;
  /** Floating-point operations of one step. */
  readonly flops: number;
  /** @throws Error when what the participants returned shows that they did not do the work. */
  check(measured: Readonly<Record<string, Measured>>): void;
}

/** The matrix product that such a bench measures itself against. */
export const product: Entry = { name: "matmul", module: "./matmul.ts" };

export interface Machine {
  readonly cpu: string;
  readonly cores: number;
  readonly memoryBytes: number;
  readonly platform: string;
  readonly node: string;
}

/** What `--json` prints. Throughputs are medians over all steps of all rounds. */
export interface Result {
  readonly name: string;
  readonly machine: Machine;
  /** Processes that ran or wanted to, averaged over the 1, 5 and 15 minutes before the run. */
  readonly load: readonly number[];
  /** With the further figures that this engine's participant reports. */
  readonly ours: {
    readonly tokensPerSecond: number;
    readonly gflops: number;
    readonly peakBytes: number;
    readonly buildSeconds: number;
    readonly [figure: string]: number;
  };
  readonly peers: Readonly<Record<string, { readonly tokensPerSecond: number }>>;
  readonly matmul: { readonly gflops: number };
  /** Ours over the fastest peer, in tokens/s; ours over the plain matrix product, in GFLOP/s. */
  readonly ratios: { readonly bestPeer: number; readonly matmul: number };
}

/** How long each participant works in a round, in seconds; a step that has begun is finished. */
const turn = 2;

/** The command that runs a bench. */
export function throughput(bench: Bench): Command {
  return {
    options: {},
    async run({ rounds, threads, log }) {
      const load = loadAverages();
      const entries = [bench.ours, ...bench.peers, product];
      const measured = await compare(entries, { rounds, threads, seconds: turn, log });
      bench.check(measured);
      const result = summarize(bench, measured, load);
      return { result, text: table(bench, measured, result) };
    },
  };
}

export function summarize(
  { name, ours, peers, tokens, flops }: Bench,
  measured: Readonly<Record<string, Measured>>,
  load: readonly number[],
): Result {
  const seconds = (entry: Entry): number => median(measured[entry.name]!.stepSeconds);
  const mine = measured[ours.name]!;
  const tokensPerSecond = tokens / seconds(ours);
  const gflops = flops / seconds(ours) / 1e9;
  const productGflops = productFlops / seconds(product) / 1e9;
  const speeds = peers.map((peer) => tokens / seconds(peer));
  return {
    name,
    machine: machine(),
    load,
    ours: { buildSeconds: mine.setupSeconds, ...mine.figures, tokensPerSecond, gflops, peakBytes: mine.peakBytes },
    peers: Object.fromEntries(peers.map((peer, i) => [peer.name, { tokensPerSecond: speeds[i]! }])),
    matmul: { gflops: productGflops },
    ratios: { bestPeer: tokensPerSecond / Math.max(...speeds), matmul: gflops / productGflops },
  };
}

/** The result for people, with what the JSON leaves out: best steps, processor time, memory, first and last losses. */
export function table(bench: Bench, measured: Readonly<Record<string, Measured>>, result: Result): string {
  const { machine, load, ours, matmul, ratios } = result;
  const rows = [bench.ours, ...bench.peers].map(({ name }) => {
    const { stepSeconds, cpuSeconds, peakBytes, values } = measured[name]!;
    const speed = (step: number): string => (bench.tokens / step).toFixed(0);
    const gflops = (bench.flops / median(stepSeconds) / 1e9).toFixed(1);
    return [
      name,
      speed(median(stepSeconds)),
      speed(Math.min(...stepSeconds)),
      gflops,
      `${median(cpuSeconds).toFixed(2)} s`,
      `${stepSeconds.length}`,
      `${(peakBytes / 2 ** 20).toFixed(0)} MiB`,
      `${values[0]!.toFixed(3)} to ${values.at(-1)!.toFixed(3)}`,
    ];
  });
  const best = productFlops / Math.min(...measured[product.name]!.stepSeconds) / 1e9;
  const further = Object.entries(measured[bench.ours.name]!.figures);
  return [
    ...heading(bench.name, machine, load),
    "",
    ...align([["", "tokens/s", "best", "GFLOP/s", "CPU a step", "steps", "peak memory", "loss"], ...rows]),
    "",
    `onnxruntime MatMul 1024^3: ${matmul.gflops.toFixed(1)} GFLOP/s (best ${best.toFixed(1)})`,
    `this engine: ${ratios.bestPeer.toFixed(2)}x the best peer, ${ratios.matmul.toFixed(2)}x the plain product, built in ${ours.buildSeconds.toFixed(2)} s`,
    ...further.map(([figure, value]) => `  ${figure}: ${Number(value.toPrecision(4))}`),
  ].join("\n");
}

/** Where and beside what other work a bench ran. */
export function heading(name: string, machine: Machine, load: readonly number[]): string[] {
  return [
    `${name}: ${machine.cpu}, ${machine.cores} cores, ${machine.platform}, Node ${machine.node}`,
    `load before the run ${load.join(", ")}; now ${loadAverages().join(", ")}`,
  ];
}

function align(rows: readonly (readonly string[])[]): string[] {
  const widths = rows[0]!.map((_, column) => Math.max(...rows.map((row) => row[column]!.length)));
  return rows.map((row) =>
    row.map((cell, column) => (column === 0 ? cell.padEnd(widths[0]!) : cell.padStart(widths[column]!))).join("  "),
  );
}

export function machine(): Machine {
  const cpus = os.cpus();
  return {
    cpu: cpus[0]?.model.trim() ?? "unknown processor",
    cores: cpus.length,
    memoryBytes: os.totalmem(),
    platform: `${os.platform()} ${os.arch()}`,
    node: process.version,
  };
}

export function loadAverages(): number[] {
  return os.loadavg().map((value) => Math.round(100 * value) / 100);
}
