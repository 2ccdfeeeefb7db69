import type { Traced } from "../../runtime/index.ts";
import {
  ArgumentError,
  abs,
  add,
  flatten,
  HostTensor,
  matmul,
  max,
  maximum,
  sum,
  type Tensor,
  transpose,
} from "../../tensor/index.ts";

/** What is known of the inputs `X [count, in]` that a matrix gets on calibration text. */
export interface InputStatistics {
  /** The named point that they were seen at. */
  readonly point: string;
  readonly count: number;
  /** `X^T X`, `f32 [in, in]`; its diagonal holds the channels' squared norms. */
  readonly gram: HostTensor;
  /** Mean and largest magnitude of each channel, `f32 [in]`. */
  readonly absMean: HostTensor;
  readonly absMax: HostTensor;
}

/** Running sums over inputs, as a program keeps them. */
export interface InputSums {
  readonly gram: HostTensor;
  readonly absSum: HostTensor;
  readonly absMax: HostTensor;
}

export function emptySums(width: number): InputSums {
  return {
    gram: HostTensor.zeros("f32", [width, width]),
    absSum: HostTensor.zeros("f32", [width]),
    absMax: HostTensor.zeros("f32", [width]),
  };
}

/** The sums with `x [batch, seq, in]` added. */
export function addInputs(sums: Traced<InputSums>, x: Tensor): Traced<InputSums> {
  const rows = flatten(x, 0, 1);
  const size = abs(rows);
  return {
    gram: add(sums.gram, matmul(transpose(rows), rows)),
    absSum: add(sums.absSum, sum(size, { axes: [0] })),
    absMax: maximum(sums.absMax, max(size, { axes: [0] })),
  };
}

/** @throws ArgumentError where activations were not finite */
export function statisticsOf(point: string, count: number, { gram, absSum, absMax }: InputSums): InputStatistics {
  const broken = absSum.data.findIndex((v) => !Number.isFinite(v as number));
  if (broken >= 0)
    throw new ArgumentError(`channel ${broken} of the activations at "${point}" is not finite on the calibration text`);
  const absMean = new HostTensor(
    "f32",
    absSum.shape,
    (absSum.data as Float32Array).map((v) => v / count),
  );
  return { point, count, gram, absMean, absMax };
}
