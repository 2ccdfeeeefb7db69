import type { TensorFile } from "../../../formats/tensor-file.ts";
import type { HostTensor } from "../../../tensor/index.ts";
import { LANES, Workspace } from "./kernels.ts";

/** Entries of a tensor that are worked on at once: so few that all arrays of a piece stay in a core's cache. */
const PIECE = 2 ** 14;

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

/** One tensor as one checkpoint has it. */
export interface TensorVersion {
  readonly dtype: Mergeable;
  readonly size: number;
  /** Fills an array with what is stored of the entries from `at` on. */
  read(at: number, into: Stored): Promise<void>;
}

export type Stored = Float32Array | Uint16Array;

/** Element types that can be merged. */
export const mergeable = ["f32", "bf16", "f16"] as const;
export type Mergeable = (typeof mergeable)[number];

/** A tensor of a file, read part by part where the file can do that. */
export function versionIn(file: TensorFile, name: string): TensorVersion {
  const { dtype, shape } = file.tensors.get(name)!;
  let whole: Promise<HostTensor> | undefined;
  return {
    dtype: dtype as Mergeable,
    size: shape.reduce((a, b) => a * b, 1),
    async read(at, into) {
      if (file.readInto) return await file.readInto(name, at, into);
      const { data } = await (whole ??= file.read(name));
      into.set((data as Stored).subarray(at, at + into.length));
    },
  };
}

/** One tensor as all checkpoints of a merge have it. */
export interface TensorVersions {
  readonly start: TensorVersion;
  /** The very object that `start` is, where the models were trained from that; null where they are changes already. */
  readonly base: TensorVersion | null;
  readonly models: readonly TensorVersion[];
}

/** Entries that are read and written at once. */
const BLOCK = 32 * PIECE;

/** Bytes of a workspace in which a merge of so many models goes through tensors. */
export function workspaceBytes(models: number): number {
  const checkpoints = models + 2;
  // Blocks of the checkpoints and of the result, two each, and twice what the arrays of a piece take.
  return 2 * 4 * BLOCK * (checkpoints + 1) + 2 * PIECE * (4 + 8) * (checkpoints + 2) + 2 ** 16;
}

/** Pieces that lie one behind the other. */
export interface Block extends Iterable<Piece> {
  readonly at: number;
  readonly count: number;
}

/**
 * Goes through one tensor of a merge, in single precision whatever the files hold: block by block as they are read, the
 * next one while one is worked on, and piece by piece.
 */
export class TensorPieces {
  readonly size: number;
  readonly workspace: Workspace;
  /** Entries that arrays for a piece, and such for a block, need room for. */
  readonly pieceLength: number;
  readonly blockLength: number;
  readonly #versions: TensorVersions;
  readonly #readers: ReadonlyMap<TensorVersion, VersionReader>;
  readonly #zeros: Float32Array;
  /** Where sums go that nobody asked for. */
  readonly #unasked: Float64Array;
  readonly #deltas: readonly Float64Array[];

  constructor(versions: TensorVersions, workspace = new Workspace(workspaceBytes(versions.models.length))) {
    const { start, base, models } = versions;
    this.size = start.size;
    this.pieceLength = Math.min(PIECE, this.size);
    this.blockLength = Math.min(BLOCK, this.size);
    this.workspace = workspace;
    workspace.clear();
    this.#versions = versions;
    const distinct = new Set([start, ...(base ? [base] : []), ...models]);
    this.#readers = new Map(Array.from(distinct, (version) => [version, new VersionReader(version, this)]));
    this.#zeros = workspace.floats(base ? 0 : this.pieceLength);
    this.#unasked = workspace.doubles(3 * LANES);
    this.#deltas = Array.from({ length: models.length + 1 }, () => workspace.doubles(this.pieceLength));
  }

  /** @param sums where to add up what `Workspace.update` does, for each update: the shift, if there is one, and the changes */
  async *blocks(sums?: readonly Float64Array[]): AsyncGenerator<Block, void, undefined> {
    const readers = [...this.#readers.values()];
    const read = (at: number): Promise<unknown> => {
      const count = Math.min(BLOCK, this.size - at);
      const reading = Promise.all(readers.map((reader) => reader.read(at, count)));
      // Whoever waits for it is told.
      reading.catch(() => {});
      return reading;
    };
    let reading: Promise<unknown> = Promise.resolve();
    try {
      if (this.size > 0) reading = read(0);
      for (let at = 0; at < this.size; at += BLOCK) {
        await reading;
        if (at + BLOCK < this.size) reading = read(at + BLOCK);
        const count = Math.min(BLOCK, this.size - at);
        yield { at, count, [Symbol.iterator]: () => this.#pieces(at, at + count, sums) };
      }
    } finally {
      // Nothing may be on its way into memory that others get.
      await reading.catch(() => {});
    }
  }

  *#pieces(from: number, end: number, sums?: readonly Float64Array[]): Generator<Piece, void, undefined> {
    const { start, base, models } = this.#versions;
    const shifted = base !== null && base !== start;
    for (let at = from; at < end; at += PIECE) {
      const count = Math.min(PIECE, end - at);
      const values = new Map(Array.from(this.#readers, ([version, reader]) => [version, reader.piece(at, count)]));
      const before = base ? values.get(base)! : this.#zeros;
      const changed = (version: TensorVersion, update: number): Change => {
        const [to, delta] = [values.get(version)!, this.#deltas[update]!];
        this.workspace.update(before, to, delta, count, sums?.[update] ?? this.#unasked);
        return { to, delta };
      };
      yield {
        at,
        count,
        start: values.get(start)!,
        before,
        shift: shifted ? changed(start, 0) : null,
        changes: models.map((model, k) => changed(model, shifted ? k + 1 : k)),
      };
    }
  }
}

/** Reads a version into one of two blocks while the other is worked on. */
class VersionReader {
  readonly #version: TensorVersion;
  readonly #workspace: Workspace;
  readonly #blocks: readonly Stored[];
  readonly #wide: Float32Array;

  constructor(version: TensorVersion, { workspace, pieceLength, blockLength, size }: TensorPieces) {
    this.#version = version;
    this.#workspace = workspace;
    const type = version.dtype === "f32" ? Float32Array : Uint16Array;
    this.#blocks = Array.from({ length: size > BLOCK ? 2 : 1 }, () => workspace.bare<Stored>(type, blockLength));
    this.#wide = workspace.floats(version.dtype === "f32" ? 0 : pieceLength);
  }

  #block(at: number): Stored {
    return this.#blocks[Math.floor(at / BLOCK) % 2]!;
  }

  async read(at: number, count: number): Promise<void> {
    const block = this.#block(at);
    await this.#version.read(at, block.subarray(0, count));
    block.fill(0, count);
  }

  /** Entries that have been read, in single precision. */
  piece(at: number, count: number): Float32Array {
    const block = this.#block(at);
    const stored = block.subarray(at % BLOCK, (at % BLOCK) + PIECE);
    const { dtype } = this.#version;
    if (dtype === "f32") return stored as Float32Array;
    this.#workspace.widen(dtype, stored as Uint16Array, this.#wide, count);
    return this.#wide;
  }
}
