import { RoundedInput } from "../../nn/index.ts";
import { HostTensor } from "../../tensor/index.ts";
import { inputsOf, type MatrixMethod } from "./method.ts";

export interface RoundedInputsOptions {
  /** 2 to 8. */
  readonly bits: number;
  /** One step for each token as it comes, or one for the whole input, from the calibration text. */
  readonly per: "token" | "tensor";
}

/** Has the inputs of a matrix rounded at run time, besides what `method` does to the matrix. */
export function roundedInputs(method: MatrixMethod, { bits, per }: RoundedInputsOptions): MatrixMethod {
  const fixed = per === "tensor";
  return {
    name: `${method.name}, inputs to ${bits} bits per ${per}`,
    calibrated: method.calibrated || fixed,
    async compress(job) {
      const range = fixed
        ? HostTensor.from((inputsOf(job).absMax.data as Float32Array).reduce((a, b) => Math.max(a, b)))
        : undefined;
      return new RoundedInput(await method.compress(job), { bits, range });
    },
  };
}
