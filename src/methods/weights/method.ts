import type { Weight } from "../../nn/index.ts";
import type { DeviceOptions } from "../../runtime/index.ts";
import { ArgumentError, type HostTensor, type Rng } from "../../tensor/index.ts";
import type { HalfPrecision } from "./half.ts";
import type { InputStatistics } from "./statistics.ts";

/** One matrix to be compressed, with what is known of its inputs. */
export interface MatrixJob {
  /** `model.layers.0.mlp.up_proj.weight` */
  readonly name: string;
  /** `f32 [out, in]`, all finite. */
  readonly weight: HostTensor;
  /** What the matrix is multiplied with on calibration text; an embedding has nothing of the kind. */
  readonly inputs: InputStatistics | null;
  /** The half precision that the matrix is stored in, and its numbers shall be, where they are not rounded further. */
  readonly half?: HalfPrecision | null;
  /** A generator of the matrix's own. */
  readonly rng: Rng;
  /** Where a method's large products run. */
  readonly device: DeviceOptions;
  /** Puts a remark into the report: what was done that was not asked for. */
  note(remark: string): void;
}

/** A post-training compression of one matrix. */
export interface MatrixMethod {
  /** The method with its settings, for reports; runs are only resumed with methods of the same names. */
  readonly name: string;
  /** Whether it looks at the statistics of the matrix's inputs. */
  readonly calibrated: boolean;
  compress(job: MatrixJob): Promise<Weight>;
}

/** The inputs' statistics of a job. @throws ArgumentError where the matrix has none */
export function inputsOf({ name, inputs }: MatrixJob): InputStatistics {
  if (inputs) return inputs;
  throw new ArgumentError(`nothing is known of the inputs of "${name}"; use a method that needs no calibration for it`);
}
