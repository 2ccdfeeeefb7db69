import { ArgumentError, children, type HostTensor, isHostTensor, type Leaf } from "../../tensor/index.ts";
import { asWeight, Dense, Weight } from "../weight.ts";
import { AffineInput } from "./affine-input.ts";
import type { BlockFormat } from "./block-format.ts";
import { type BlockParts, BlockWeight } from "./blocks.ts";
import { CodebookWeight } from "./codebook.ts";
import { GridInput } from "./grid-input.ts";
import { HalfWeight } from "./half.ts";
import { KeptRows } from "./kept-rows.ts";
import { LowRank } from "./low-rank.ts";
import { RoundedInput } from "./rounded-input.ts";
import { type SparseIndex, SparseWeight } from "./sparse.ts";
import { Sparse24 } from "./sparse24.ts";
import { SumWeight } from "./sum.ts";
import { TransformedWeight } from "./transformed.ts";

/** What a file says of a weight besides its tensors: plain JSON. Dense weights and vectors need nothing said. */
export interface WeightDescription {
  readonly kind: string;
  readonly attributes: Readonly<Record<string, unknown>>;
  /** Names of its tensors and weights. */
  readonly children: readonly string[];
  /** Descriptions of those children that are not dense. */
  readonly inner?: Readonly<Record<string, WeightDescription>>;
}

export interface StoredWeights {
  /** By name: `<weight>` for dense ones, `<weight>.<part>` for others, and so on inwards. */
  readonly tensors: Record<string, HostTensor>;
  readonly description: Record<string, WeightDescription>;
}

/**
 * Weights as plain tensors and a description, from which `restoreWeights` makes them again.
 * @throws ArgumentError for weights without numbers
 */
export function storeWeights(weights: Readonly<Record<string, Weight | Leaf>>): StoredWeights {
  const { tensors, description } = takeApart(weights);
  for (const [name, tensor] of Object.entries(tensors))
    if (!isHostTensor(tensor)) throw new ArgumentError(`"${name}" is symbolic; only host tensors can be stored`);
  return { tensors: tensors as Record<string, HostTensor>, description };
}

/** As `storeWeights`, of weights with or without numbers. */
export function takeApart(
  weights: Readonly<Record<string, Weight | Leaf>>,
): Pick<StoredWeights, "description"> & { readonly tensors: Record<string, Leaf> } {
  const tensors: Record<string, Leaf> = {};
  const put = (name: string, tensor: Leaf): void => {
    if (Object.hasOwn(tensors, name)) throw new ArgumentError(`two tensors would be stored as "${name}"`);
    tensors[name] = tensor;
  };
  const describe = (name: string, value: Weight | Leaf): WeightDescription | undefined => {
    if (!(value instanceof Weight)) return void put(name, value);
    if (value instanceof Dense) return void put(name, value.values);
    const parts = value[children]();
    const inner: Record<string, WeightDescription> = {};
    for (const [key, part] of Object.entries(parts)) {
      const found = describe(`${name}.${key}`, part);
      if (found) inner[key] = found;
    }
    const { kind, attributes } = value;
    return {
      kind,
      attributes,
      children: Object.keys(parts),
      ...(Object.keys(inner).length > 0 && { inner }),
    };
  };
  const description: Record<string, WeightDescription> = {};
  for (const [name, value] of Object.entries(weights)) {
    const found = describe(name, value);
    if (found) description[name] = found;
  }
  return { tensors, description };
}

/** Attributes and children of a description, checked when they are asked for. */
class Parts {
  readonly #name: string;
  readonly #attributes: Readonly<Record<string, unknown>>;
  readonly #parts: ReadonlyMap<string, Weight | Leaf>;

  constructor(name: string, attributes: Readonly<Record<string, unknown>>, parts: ReadonlyMap<string, Weight | Leaf>) {
    this.#name = name;
    this.#attributes = attributes;
    this.#parts = parts;
  }

  has(key: string): boolean {
    return this.#parts.has(key);
  }

  weight(key: string): Weight {
    return asWeight(this.#part(key));
  }

  tensor(key: string): Leaf {
    const part = this.#part(key);
    if (part instanceof Weight) throw new ArgumentError(`"${this.#name}.${key}" must be a tensor, not ${part.kind}`);
    return part;
  }

  #part(key: string): Weight | Leaf {
    const part = this.#parts.get(key);
    if (!part) throw new ArgumentError(`the description of "${this.#name}" lacks its part "${key}"`);
    return part;
  }

  count(key: string): number {
    const value = this.#attributes[key];
    if (!(Number.isSafeInteger(value) && (value as number) >= 0)) this.#refuse(key, "a whole number");
    return value as number;
  }

  number(key: string): number {
    const value = this.#attributes[key];
    if (!Number.isFinite(value)) this.#refuse(key, "a number");
    return value as number;
  }

  numbers(key: string): number[] {
    const value = this.#attributes[key];
    if (!Array.isArray(value) || !value.every((n) => Number.isFinite(n))) this.#refuse(key, "a list of numbers");
    return value as number[];
  }

  text(key: string): string {
    const value = this.#attributes[key];
    if (typeof value !== "string") this.#refuse(key, "a text");
    return value as string;
  }

  flag(key: string): boolean {
    const value = this.#attributes[key];
    if (typeof value !== "boolean") this.#refuse(key, "true or false");
    return value as boolean;
  }

  #refuse(key: string, wanted: string): never {
    throw new ArgumentError(
      `the attribute "${key}" of "${this.#name}" must be ${wanted}, not ${JSON.stringify(this.#attributes[key])}`,
    );
  }
}

const kinds: Readonly<Record<string, (parts: Parts) => Weight>> = {
  "affine-input": (p) => new AffineInput(p.weight("inner")),
  blocks: (p) =>
    new BlockWeight(
      {
        codes: p.tensor("codes"),
        scales: p.tensor("scales"),
        ...(p.has("zeroPoints") && { zeroPoints: p.tensor("zeroPoints") }),
      } satisfies BlockParts,
      {
        format: p.text("format") as BlockFormat,
        block: p.count("block"),
        columns: p.count("columns"),
        exact: p.flag("exact"),
      },
    ),
  codebook: (p) => new CodebookWeight({ codes: p.tensor("codes"), levels: p.tensor("levels") }, p.count("columns")),
  "grid-input": (p) =>
    new GridInput(p.weight("inner"), {
      levels: p.count("levels"),
      scale: p.number("scale"),
      ...(p.has("step") && { step: p.tensor("step") }),
    }),
  half: (p) => new HalfWeight(p.tensor("values")),
  "kept-rows": (p) => new KeptRows(p.weight("inner"), p.tensor("ids"), p.count("outputs")),
  "low-rank": (p) => new LowRank(p.weight("up"), p.weight("down")),
  "rounded-input": (p) =>
    new RoundedInput(p.weight("inner"), { bits: p.count("bits"), ...(p.has("range") && { range: p.tensor("range") }) }),
  sparse: (p) => {
    const [rows = 0, columns = 0] = p.numbers("shape");
    const index: SparseIndex = p.has("bitmap")
      ? { bitmap: p.tensor("bitmap") }
      : { columns: p.tensor("columns"), counts: p.tensor("counts") };
    return new SparseWeight([rows, columns], p.tensor("values"), index);
  },
  sparse24: (p) => new Sparse24(p.tensor("values"), p.tensor("places")),
  sum: (p) => new SumWeight(p.numbers("scales").map((scale, i) => ({ weight: p.weight(`${i}`), scale }))),
  transformed: (p) =>
    new TransformedWeight(p.weight("inner"), {
      ...(p.has("scales") && { scales: p.tensor("scales") }),
      hadamard: p.count("hadamard"),
    }),
};

const isRecord = (value: unknown): value is Record<string, unknown> =>
  typeof value === "object" && value !== null && !Array.isArray(value);

/**
 * The weights that `storeWeights` took apart; tensors that the description does not speak of are returned as they are.
 * Out of symbolic tensors come symbolic weights, by which a description can be checked before numbers are read.
 * @throws ArgumentError, ShapeError, DTypeError for a description that is none or that does not fit the tensors.
 */
export function restoreWeights<T extends Leaf = HostTensor>(
  description: unknown,
  tensors: Readonly<Record<string, T>>,
): Record<string, Weight | T> {
  if (!isRecord(description)) throw new ArgumentError("the description of weights must be a record by name");
  const used = new Set<string>();
  const take = (name: string): T => {
    if (!Object.hasOwn(tensors, name)) throw new ArgumentError(`the file lacks the tensor "${name}"`);
    used.add(name);
    return tensors[name]!;
  };
  const make = (name: string, value: unknown): Weight => {
    if (!isRecord(value) || typeof value.kind !== "string" || !isRecord(value.attributes) || !isNames(value.children))
      throw new ArgumentError(`the description of "${name}" needs its kind, attributes and children`);
    const { kind, attributes, inner = {} } = value;
    if (!Object.hasOwn(kinds, kind))
      throw new ArgumentError(`"${name}" is of kind "${kind}"; known are dense, ${Object.keys(kinds).join(", ")}`);
    if (!isRecord(inner)) throw new ArgumentError(`the inner descriptions of "${name}" must be a record`);
    const parts = new Map(
      value.children.map((key) => {
        const path = `${name}.${key}`;
        return [key, Object.hasOwn(inner, key) ? make(path, inner[key]) : take(path)];
      }),
    );
    return kinds[kind]!(new Parts(name, attributes, parts));
  };
  const made = Object.entries(description).map(([name, value]) => [name, make(name, value)] as const);
  const rest = Object.entries(tensors).filter(([name]) => !used.has(name));
  return Object.fromEntries<Weight | T>([...rest, ...made]);
}

const isNames = (value: unknown): value is string[] =>
  Array.isArray(value) && value.every((key) => typeof key === "string");
