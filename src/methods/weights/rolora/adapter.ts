import { encodeSafetensors, memorySource, SafetensorsFile } from "../../../formats/index.ts";
import type { Weights } from "../../../models/index.ts";
import { LowRank, SumWeight, storeWeights, TransformedWeight } from "../../../nn/index.ts";
import { ArgumentError, flattenTree, type HostTensor, isHostTensor, mapTree, Rng } from "../../../tensor/index.ts";
import { isLora, mergeLora, withLora } from "../../../train/index.ts";
import type { MaybeRotated, Rotation } from "./rotate.ts";

/** Adapters of a model's matrices, with what tells which model they belong to. */
export interface Adapter {
  readonly rank: number;
  readonly alpha: number;
  /** How the base was turned; null where it was not. */
  readonly rotation: Rotation | null;
  /** SHA-256 of the base's tensors. */
  readonly base: string;
  /** The thin matrices, by path. */
  readonly tensors: Readonly<Record<string, HostTensor>>;
}

/** A digest of all tensors of a model by name, `sha256` in hexadecimal. */
export async function weightsDigest(weights: Weights): Promise<string> {
  const { tensors, description } = storeWeights(weights);
  const lines: string[] = [JSON.stringify(description)];
  for (const name of Object.keys(tensors).sort()) {
    const { dtype, shape } = tensors[name]!;
    lines.push(`${name} ${dtype} [${shape.join(", ")}] ${await sha256(tensors[name]!.rawBytes())}`);
  }
  return sha256(new TextEncoder().encode(lines.join("\n")));
}

async function sha256(bytes: Uint8Array): Promise<string> {
  const digest = new Uint8Array(await crypto.subtle.digest("SHA-256", bytes as Uint8Array<ArrayBuffer>));
  return Array.from(digest, (byte) => byte.toString(16).padStart(2, "0")).join("");
}

/** The adapters of weights that were trained from `base` with `withLora`. */
export async function adapterOf(base: MaybeRotated, tuned: Weights): Promise<Adapter> {
  const sum = Object.values(tuned)
    .map(sumOf)
    .find((found) => found !== null);
  if (!sum) throw new ArgumentError("the weights have no adapters; make them with withLora");
  const { weight, scale } = sum.terms[1]!;
  const { rank } = weight as LowRank;
  const tensors = Object.fromEntries(
    Object.entries(flattenTree(tuned, isHostTensor)).filter(([path]) => isLora(path)),
  ) as Record<string, HostTensor>;
  return {
    rank,
    alpha: scale * rank,
    rotation: base.rotation ?? null,
    base: await weightsDigest(base.weights),
    tensors,
  };
}

function sumOf(value: unknown): SumWeight | null {
  const inner = value instanceof TransformedWeight ? value.inner : value;
  return inner instanceof SumWeight && inner.terms[1]?.weight instanceof LowRank ? inner : null;
}

/**
 * The base with its adapters added, in the space that they were trained in: a rotated base stays rotated.
 * @throws ArgumentError where the adapters were trained on another base, or one that was turned otherwise
 */
export async function mergeAdapter<M extends MaybeRotated>(base: M, adapter: Adapter): Promise<M> {
  const [own, its] = [rotationName(base.rotation ?? null), rotationName(adapter.rotation)];
  if (own !== its)
    throw new ArgumentError(
      `the adapter was trained on a model that is ${its}, and this one is ${own}; merge it into its own base`,
    );
  const digest = await weightsDigest(base.weights);
  if (digest !== adapter.base)
    throw new ArgumentError(
      `the adapter was trained on another base: its digest is ${adapter.base.slice(0, 12)}..., and this one's ${digest.slice(0, 12)}...`,
    );
  const { rank, alpha } = adapter;
  const adapted = new Set(Object.keys(adapter.tensors).map((path) => path.replace(/\.weight\..*$/, ".weight")));
  const empty = withLora(base.weights, { rank, alpha, targets: (name) => adapted.has(name), rng: new Rng(0) });
  const filled = mapTree(empty, isHostTensor, (leaf, path) => adapter.tensors[path] ?? leaf) as Weights;
  return { ...base, weights: await mergeLora(filled) };
}

function rotationName(rotation: Rotation | null): string {
  if (!rotation) return "not rotated";
  return `rotated (${rotation.mode}, seed ${rotation.seed}${rotation.downProj ? "" : ", down projections left alone"})`;
}

const FORMAT = "pare.adapter";

/** An adapter as a safetensors file. */
export function encodeAdapter({ tensors, ...about }: Adapter): Promise<Uint8Array<ArrayBuffer>> {
  return encodeSafetensors(Object.entries(tensors), new Map([[FORMAT, JSON.stringify(about)]]));
}

/** An adapter from the bytes of such a file. @throws FormatError, ArgumentError where it is none */
export async function decodeAdapter(bytes: Uint8Array<ArrayBuffer>, name = "adapter"): Promise<Adapter> {
  await using file = await SafetensorsFile.open(memorySource(bytes, name));
  const about = parsed(file.metadata.get(FORMAT));
  if (!about) throw new ArgumentError(`${name} is no adapter of pare's: its metadata lack a whole "${FORMAT}"`);
  const tensors: Record<string, HostTensor> = {};
  for (const path of file.tensors.keys()) tensors[path] = await file.read(path);
  return { ...about, tensors };
}

function parsed(text: string | undefined): Omit<Adapter, "tensors"> | null {
  try {
    const { rank, alpha, rotation, base } = JSON.parse(text ?? "null") as Omit<Adapter, "tensors">;
    const turned =
      rotation === null ||
      (typeof rotation === "object" && Number.isFinite(rotation.seed) && typeof rotation.mode === "string");
    const whole = Number.isInteger(rank) && Number.isFinite(alpha) && typeof base === "string" && turned;
    return whole ? { rank, alpha, rotation, base } : null;
  } catch {
    return null;
  }
}
