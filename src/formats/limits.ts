import { LimitError } from "./errors.ts";

/**
 * Caps on what a file may ask for before it is trusted. Each is far above what real models need and far below
 * what would hurt; readers take a partial object that overrides them.
 */
export const safetensorsLimits = {
  /** Bytes of the JSON header. The format allows 100 MB; a header of 100,000 tensors is about 12 MB. */
  headerBytes: 25_000_000,
  /** Tensors in a file: mixtures of experts with unfused projections reach tens of thousands. */
  tensors: 200_000,
  /** UTF-8 bytes of a tensor's name: a module path, tens of bytes in practice. */
  nameBytes: 1024,
  /** Dimensions of a tensor: convolutions over video have five. */
  rank: 8,
  /** Shards of a model. Each holds a file handle open, and systems commonly allow 1,024. */
  shards: 1000,
  /** Bytes of the shard index: about 100 per tensor. */
  indexBytes: 25_000_000,
};

export const ggufLimits = {
  /** Key-value pairs: real files have tens. */
  keys: 100_000,
  /** Tensors in a file. */
  tensors: 200_000,
  /** UTF-8 bytes of a string value; chat templates are the longest, at tens of thousands. */
  stringBytes: 10_000_000,
  /** UTF-8 bytes of a key, which the format bounds at 65,535. */
  keyBytes: 65_535,
  /** UTF-8 bytes of a tensor's name; llama.cpp itself stops at 63. */
  nameBytes: 1024,
  /** Elements of an array: vocabularies and merge lists reach a few hundred thousand. */
  arrayLength: 4_000_000,
  /** Arrays within arrays: none are in use. */
  nesting: 4,
  /** Dimensions of a tensor: the format's own bound. */
  rank: 4,
  /** One dimension of a tensor. */
  dimension: 2 ** 32,
  /** Boundary that tensor data is padded to; 32 is the default. */
  alignment: 4096,
  /** Bytes before the first tensor's data: a vocabulary of 256,000 with merges takes about 15 MB. */
  headerBytes: 256_000_000,
};

export const llama2cLimits = {
  /** Layers: the deepest published Llama has 126. */
  layers: 10_000,
  /** Pieces of a vocabulary. */
  pieces: 1_000_000,
  /** Bytes of a piece: about a hundred at most in practice. */
  pieceBytes: 1024,
};

/** Some of the caps replaced. */
export type Limits<T> = Readonly<Partial<T>>;

/** @throws LimitError when `value` is over the cap called `key`. */
export function checkLimit<T extends Record<string, number>>(
  limits: T,
  key: keyof T & string,
  value: number | bigint,
  where: string,
  what: string,
): void {
  const limit = limits[key]!;
  if (value > limit) {
    throw new LimitError(
      `${where}: ${what} is ${value}, over the limit of ${limit}; raise limits.${key} if you trust the file`,
    );
  }
}
