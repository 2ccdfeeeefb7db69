import type { HostTensor } from "../../../tensor/index.ts";
import { Workspace } from "./kernels.ts";

/** Entries of a tensor that are worked on at once: so few that all arrays of a piece stay in a core's cache. */
const PIECE = 8192;

/** What training made of a run of entries, and by how much that differs from what it began with. */
export interface Change {
  readonly to: Float32Array;
  /** `to - before`, in double precision. */
  readonly delta: Float64Array;
}

/**
 * A run of entries of one tensor. Its arrays, which are a workspace's, hold zeros behind these entries, and the next piece
 * is written into the same; until then, whoever has them may write to them.
 */
export interface Piece {
  /** Its first entry, and how many there are. */
  readonly at: number;
  readonly count: number;
  /** What the changes are applied to. */
  readonly start: Float32Array;
  /** What the models were trained from; zeros where they are changes already. */
  readonly before: Float32Array;
  /** One for each model. */
  readonly changes: readonly Change[];
  /** What made the base into the start, where they are two. */
  readonly shift: Change | null;
}

/** One tensor as all checkpoints of a merge have it. */
export interface TensorVersions {
  readonly start: HostTensor;
  /** The very object that `start` is, where the models were trained from that; null where they are changes already. */
  readonly base: HostTensor | null;
  readonly models: readonly HostTensor[];
}

/** Bytes of a workspace in which a merge of so many models goes through tensors. */
export function workspaceBytes(models: number): number {
  // Twice as many bytes a piece as all arrays take, for what rules have besides.
  return 2 * PIECE * (models + 2) * (2 + 4 + 8);
}

/** Goes through one tensor of a merge piece by piece, in single precision whatever the files hold. */
export class TensorPieces implements Iterable<Piece> {
  readonly size: number;
  readonly workspace: Workspace;
  /** Entries of a piece but for the last. */
  readonly length: number;
  readonly #versions: TensorVersions;
  readonly #read: ReadonlyMap<HostTensor, Reader>;
  readonly #zeros: Float32Array;
  readonly #deltas: readonly Float64Array[];

  constructor(versions: TensorVersions, workspace = new Workspace(workspaceBytes(versions.models.length))) {
    const { start, base, models } = versions;
    this.size = start.size;
    this.length = Math.min(PIECE, this.size);
    this.workspace = workspace;
    workspace.clear();
    this.#versions = versions;
    const distinct = new Set([start, ...(base ? [base] : []), ...models]);
    this.#read = new Map(Array.from(distinct, (tensor) => [tensor, reader(tensor, this.length, workspace)]));
    this.#zeros = workspace.floats(base ? 0 : this.length);
    this.#deltas = Array.from({ length: models.length + 1 }, () => workspace.doubles(this.length));
  }

  *[Symbol.iterator](): Generator<Piece, void, undefined> {
    const { start, base, models } = this.#versions;
    for (let at = 0; at < this.size; at += PIECE) {
      const count = Math.min(this.length, this.size - at);
      const values = new Map(Array.from(this.#read, ([tensor, read]) => [tensor, read(at, count)]));
      const before = base ? values.get(base)! : this.#zeros;
      const changed = (tensor: HostTensor, i: number): Change => {
        const [to, delta] = [values.get(tensor)!, this.#deltas[i]!];
        this.workspace.subtract(to, before, delta, count);
        return { to, delta };
      };
      yield {
        at,
        count,
        start: values.get(start)!,
        before,
        changes: models.map(changed),
        shift: base && base !== start ? changed(start, models.length) : null,
      };
    }
  }
}

/** Gives `count` entries of a tensor from `at` on in single precision, in memory that the next call uses again. */
type Reader = (at: number, count: number) => Float32Array;

function reader({ dtype, data }: HostTensor, length: number, workspace: Workspace): Reader {
  const values = workspace.floats(length);
  const source = dtype === "f32" ? values : workspace.halves(length);
  return (at, count) => {
    source.set((data as Float32Array).subarray(at, at + count));
    source.fill(0, count);
    if (dtype === "bf16" || dtype === "f16") workspace.widen(dtype, source as Uint16Array, values, count);
    return values;
  };
}
