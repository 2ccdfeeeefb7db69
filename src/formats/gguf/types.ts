import type { DType } from "../../tensor/dtype.ts";

export interface GgmlType {
  readonly name: string;
  /** Number that stands for it in files. */
  readonly id: number;
  /** Elements that are encoded together; a row is a whole number of blocks. */
  readonly block: number;
  /** Bytes of a block. */
  readonly bytes: number;
  /** The element type of types that hold plain numbers. */
  readonly dtype?: DType;
}

const type = (name: string, id: number, block: number, bytes: number, dtype?: DType): GgmlType =>
  dtype ? { name, id, block, bytes, dtype } : { name, id, block, bytes };

const all = [
  type("F32", 0, 1, 4, "f32"),
  type("F16", 1, 1, 2, "f16"),
  type("Q4_0", 2, 32, 18),
  type("Q4_1", 3, 32, 20),
  type("Q5_0", 6, 32, 22),
  type("Q5_1", 7, 32, 24),
  type("Q8_0", 8, 32, 34),
  type("Q8_1", 9, 32, 36),
  type("Q2_K", 10, 256, 84),
  type("Q3_K", 11, 256, 110),
  type("Q4_K", 12, 256, 144),
  type("Q5_K", 13, 256, 176),
  type("Q6_K", 14, 256, 210),
  type("Q8_K", 15, 256, 292),
  type("IQ2_XXS", 16, 256, 66),
  type("IQ2_XS", 17, 256, 74),
  type("IQ3_XXS", 18, 256, 98),
  type("IQ1_S", 19, 256, 50),
  type("IQ4_NL", 20, 32, 18),
  type("IQ3_S", 21, 256, 110),
  type("IQ2_S", 22, 256, 82),
  type("IQ4_XS", 23, 256, 136),
  type("I8", 24, 1, 1, "i8"),
  type("I16", 25, 1, 2, "i16"),
  type("I32", 26, 1, 4, "i32"),
  type("I64", 27, 1, 8, "i64"),
  type("F64", 28, 1, 8, "f64"),
  type("IQ1_M", 29, 256, 56),
  type("BF16", 30, 1, 2, "bf16"),
  type("TQ1_0", 34, 256, 54),
  type("TQ2_0", 35, 256, 66),
  type("MXFP4", 39, 32, 17),
  type("NVFP4", 40, 64, 36),
  type("Q1_0", 41, 128, 18),
  type("Q2_0", 42, 64, 18),
] as const;

/** Element types of GGUF files by the number that stands for them; the gaps are types that were withdrawn. */
export const ggmlTypesById: ReadonlyMap<number, GgmlType> = new Map(all.map((t) => [t.id, t]));

/** Element types of GGUF files by name. */
export const ggmlTypes: ReadonlyMap<string, GgmlType> = new Map(all.map((t) => [t.name, t]));
