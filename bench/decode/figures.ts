import { type Measured, median } from "../harness.ts";
import { heading, type Machine, machine } from "../report.ts";
import { bandwidthBytes } from "./bandwidth.ts";
import { contexts, decodedTokens, type Precision, precisions, promptTokens } from "./shapes.ts";

/** Names of the participants. */
export const ours = "pare";
export const bandwidth = "bandwidth";

/** The other engines, under the keys of the ratios. */
export const peers = {
  llamaCpp: { name: "llama.cpp", module: "./peers/llama-cpp.ts" },
  transformersJs: { name: "transformers.js", module: "./peers/transformers-js.ts" },
} as const;

type Peer = keyof typeof peers;

/** By precision, participant and work. */
export type MeasuredAt = Partial<Record<Precision, Readonly<Record<string, Readonly<Record<string, Measured>>>>>>;

interface Speed {
  /** Median over all steps of all rounds. */
  readonly tokensPerSecond: number;
  /** Of the fastest step. */
  readonly bestTokensPerSecond: number;
  /** Processor time, all threads together, median. */
  readonly cpuSecondsPerToken: number;
}

interface Figures {
  readonly prefill: Speed;
  /** Behind so many tokens; `shareOfBound` is of what would take no longer than reading the weights. */
  readonly decode: Readonly<Record<number, Speed & { readonly shareOfBound: number }>>;
  readonly loadSeconds: number;
  /** Peak of resident memory while the model is loaded, and in the rounds. */
  readonly loadPeakBytes: number;
  readonly peakBytes: number;
  readonly weightBytes: number;
}

type At<T> = Partial<Record<Precision, T>>;
type Ratios = Readonly<Record<Peer, At<number>>>;

/** What `--json` prints. */
export interface DecodeResult {
  readonly name: "decode";
  readonly machine: Machine;
  /** Processes that ran or wanted to, averaged over the 1, 5 and 15 minutes before the run. */
  readonly load: readonly number[];
  readonly shape: string;
  readonly threads: number;
  /** Bytes a second at which a large matrix is read, measured in turns with the engines. */
  readonly bandwidth: At<number>;
  readonly ours: At<Figures>;
  readonly peers: Readonly<Record<Peer, At<Figures>>>;
  /** Ours over theirs: tokens/s of decoding behind the longest context. */
  readonly ratios: Ratios;
  /** The same of the other works, and of the longest context by best steps and by processor time. */
  readonly furtherRatios: Readonly<Record<string, Ratios>>;
}

const longest = contexts.at(-1)!;

export function summarize(
  measured: MeasuredAt,
  about: { readonly shape: string; readonly threads: number; readonly load: readonly number[] },
): DecodeResult {
  const at = <T>(value: (by: NonNullable<MeasuredAt[Precision]>) => T): At<T> =>
    Object.fromEntries(Object.entries(measured).map(([precision, by]) => [precision, value(by)]));
  const speed = (by: NonNullable<MeasuredAt[Precision]>): number =>
    bandwidthBytes / median(by[bandwidth]!.step!.stepSeconds);
  const figures = (name: string): At<Figures> => at((by) => figuresOf(by[name]!, speed(by)));
  const mine = figures(ours);
  const theirs = forPeers((peer) => figures(peers[peer].name));
  const ratios = (value: (figures: Figures) => number): Ratios =>
    forPeers((peer) =>
      Object.fromEntries(
        Object.entries(mine).map(([precision, f]) => [
          precision,
          value(f) / value(theirs[peer][precision as Precision]!),
        ]),
      ),
    );
  return {
    name: "decode",
    machine: machine(),
    ...about,
    bandwidth: at(speed),
    ours: mine,
    peers: theirs,
    ratios: ratios((f) => f.decode[longest]!.tokensPerSecond),
    furtherRatios: {
      prefill: ratios((f) => f.prefill.tokensPerSecond),
      ...Object.fromEntries(
        contexts.slice(0, -1).map((length) => [`decode${length}`, ratios((f) => f.decode[length]!.tokensPerSecond)]),
      ),
      best: ratios((f) => f.decode[longest]!.bestTokensPerSecond),
      cpu: ratios((f) => 1 / f.decode[longest]!.cpuSecondsPerToken),
    },
  };
}

function forPeers<T>(value: (peer: Peer) => T): Record<Peer, T> {
  return Object.fromEntries(Object.keys(peers).map((peer) => [peer, value(peer as Peer)])) as Record<Peer, T>;
}

function figuresOf(by: Readonly<Record<string, Measured>>, bytesPerSecond: number): Figures {
  const { setupSeconds, setupPeakBytes, peakBytes, figures } = by.prefill!;
  const weightBytes = figures.weightBytes!;
  return {
    prefill: speedOf(by.prefill!, promptTokens),
    decode: Object.fromEntries(
      contexts.map((length) => {
        const speed = speedOf(by[`decode${length}`]!, decodedTokens);
        return [length, { ...speed, shareOfBound: (speed.tokensPerSecond * weightBytes) / bytesPerSecond }];
      }),
    ),
    loadSeconds: setupSeconds,
    loadPeakBytes: setupPeakBytes,
    peakBytes,
    weightBytes,
  };
}

function speedOf({ stepSeconds, cpuSeconds }: Measured, tokens: number): Speed {
  return {
    tokensPerSecond: tokens / median(stepSeconds),
    bestTokensPerSecond: tokens / Math.min(...stepSeconds),
    cpuSecondsPerToken: median(cpuSeconds) / tokens,
  };
}

/** The result for people, in Markdown. */
export function table(result: DecodeResult): string {
  const { name, machine, load, shape, threads } = result;
  const wanted = Object.keys(result.ours) as Precision[];
  const engines = [
    [ours, result.ours] as const,
    ...Object.entries(peers).map(([peer, { name }]) => [name, result.peers[peer as Peer]] as const),
  ];
  const rows = wanted.flatMap((precision) =>
    engines.map(([engine, at]) => [`${precisions[precision].bits}`, `\`${engine}\``, ...cells(at[precision]!)]),
  );
  const ratios = Object.entries({ [`decode${longest}`]: result.ratios, ...result.furtherRatios }).map(([what, by]) => [
    what,
    ...Object.values(by).map((at) => wanted.map((precision) => at[precision]!.toFixed(2)).join(" / ")),
  ]);
  const speeds = wanted.map((precision) => (result.bandwidth[precision]! / 1e9).toFixed(1)).join(" / ");
  const bits = wanted.map((precision) => precisions[precision].bits).join(" / ");
  return [
    ...heading(`${name} ${shape}, ${threads} threads`, machine, load),
    "",
    ...markdown([columns, ...rows]),
    "",
    ...markdown([[`ours over theirs at ${bits} bits`, ...Object.values(peers).map((peer) => peer.name)], ...ratios]),
    "",
    `bandwidth of a large matrix, while at ${bits} bits: ${speeds} GB/s`,
  ].join("\n");
}

const columns = [
  "bits",
  "",
  "prefill",
  ...contexts.map((length) => `behind ${length}`),
  "best",
  "of the bound",
  "processor time a token",
  "load",
  "peak, loading",
  "peak",
];

function cells({ prefill, decode, loadSeconds, loadPeakBytes, peakBytes }: Figures): string[] {
  const whole = (speed: number): string => speed.toFixed(speed < 10 ? 1 : 0);
  const mebibytes = (bytes: number): string => `${(bytes / 2 ** 20).toFixed(0)} MiB`;
  const last = decode[longest]!;
  return [
    whole(prefill.tokensPerSecond),
    ...contexts.map((length) => whole(decode[length]!.tokensPerSecond)),
    whole(last.bestTokensPerSecond),
    `${(100 * last.shareOfBound).toFixed(0)}%`,
    `${(1000 * last.cpuSecondsPerToken).toFixed(1)} ms`,
    `${loadSeconds.toFixed(1)} s`,
    mebibytes(loadPeakBytes),
    mebibytes(peakBytes),
  ];
}

function markdown(rows: readonly (readonly string[])[]): string[] {
  const lines = rows.map((row) => `| ${row.join(" | ")} |`);
  return [lines[0]!, `|${" --- |".repeat(rows[0]!.length)}`, ...lines.slice(1)];
}
