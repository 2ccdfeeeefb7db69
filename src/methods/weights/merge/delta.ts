import type { PendingTensor, TensorFile } from "../../../formats/tensor-file.ts";
import { ModelError } from "../../../models/errors.ts";
import { ArgumentError, HostTensor } from "../../../tensor/index.ts";
import { checkAlike, checkTypes, Merge, type MergeOptions, readFinite } from "./merge.ts";
import { addition } from "./rules.ts";

/** Under this key a file of changes names the base that they are from, by its `tensorsFingerprint`. */
const BASE = "pare.delta.base";

/** A file's tensors and metadata, for a writer. */
export interface Delta {
  readonly tensors: readonly PendingTensor[];
  readonly metadata: ReadonlyMap<string, string>;
}

/** A file of tensors with what its header says besides. */
export type DeltaFile = TensorFile & { readonly metadata: ReadonlyMap<string, string> };

/** SHA-256 of a checkpoint: of its tensors' names, types, shapes and bytes, whatever files they lie in. Reads all. */
export async function tensorsFingerprint(file: TensorFile): Promise<string> {
  const lines: string[] = [];
  for (const name of [...file.tensors.keys()].sort()) {
    const tensor = await file.read(name);
    lines.push(`${name} ${tensor.dtype} ${tensor.shape.join("x")} ${await sha256(tensor.rawBytes())}`);
  }
  return await sha256(new TextEncoder().encode(lines.join("\n")));
}

async function sha256(bytes: Uint8Array): Promise<string> {
  const digest = new Uint8Array(await crypto.subtle.digest("SHA-256", bytes as Uint8Array<ArrayBuffer>));
  return Array.from(digest, (byte) => byte.toString(16).padStart(2, "0")).join("");
}

/**
 * What post-training added to a base, `post - base` tensor by tensor, to be published by itself: with the fingerprint of
 * the base, and of no use without one. The base is read twice.
 * @throws ModelError where the checkpoints differ, hold codes, or hold numbers that are not finite (while loading)
 */
export async function extractDelta(
  post: TensorFile,
  base: TensorFile,
  { dtype = "f32" }: { readonly dtype?: "f32" | "bf16" } = {},
): Promise<Delta> {
  for (const file of [post, base]) checkTypes(file);
  checkAlike(post, base);
  const tensors = Array.from(post.tensors.values(), ({ name, shape }) => ({
    name,
    dtype,
    shape,
    load: async () => {
      const [after, before] = [await readFinite(post, name), await readFinite(base, name)];
      const change = after.map((value, i) => value - before[i]!);
      return new HostTensor("f32", shape, change).cast(dtype);
    },
  }));
  return { tensors, metadata: new Map([[BASE, await tensorsFingerprint(base)]]) };
}

/** The fingerprint of the base that a file of changes is from. @throws ModelError for a file that is none */
export function baseOfDelta({ name, metadata }: DeltaFile): string {
  const base = metadata.get(BASE);
  if (base === undefined) throw new ModelError(`${name} is no file of changes: it names no base that they are from`);
  return base;
}

/**
 * A base with `alpha` times published changes added, tensor by tensor, as `Merge` does it.
 * @throws ModelError for a file that is no changes, or whose tensors are not those of the base; ArgumentError for an
 *   alpha that is not finite
 */
export function applyDelta(newBase: TensorFile, delta: DeltaFile, alpha = 1, options?: MergeOptions): Merge {
  baseOfDelta(delta);
  if (!Number.isFinite(alpha)) throw new ArgumentError(`alpha must be finite, not ${alpha}`);
  const models = [{ name: delta.name, file: delta, weight: alpha }];
  return new Merge({ start: newBase, base: null, models }, addition, options);
}
