import { sizeOf } from "../dims.ts";
import { HostTensor } from "../host.ts";
import { constant, type Tensor } from "../tensor.ts";
import { matmul } from "./linalg.ts";
import { reshape } from "./shape.ts";

/** A linear map between two lengths of an axis: entry `i * result + o` is what input `i` adds to output `o`. */
export interface AxisMap {
  readonly length: number;
  readonly result: number;
  readonly weights: Float64Array;
}

/** The map whose output `o` is the sum of `weight * input[source]` over `taps(o)`; a source may occur twice. */
export function axisMap(
  length: number,
  result: number,
  taps: (o: number) => readonly (readonly [source: number, weight: number])[],
): AxisMap {
  const weights = new Float64Array(length * result);
  for (let o = 0; o < result; o++) for (const [source, weight] of taps(o)) weights[source * result + o]! += weight;
  return { length, result, weights };
}

/** The map of cotangents that belongs to `map`. */
export function transposeMap({ length, result, weights }: AxisMap): AxisMap {
  const turned = weights.map((_, k) => weights[(k % length) * result + Math.floor(k / length)]!);
  return { length: result, result: length, weights: turned };
}

/** `x` with `map` applied along `axis`, as one matrix product. */
export function mapAxis(x: Tensor, axis: number, map: AxisMap): Tensor {
  const matrix = ({ length, result, weights }: AxisMap): Tensor =>
    constant(HostTensor.from(weights, { shape: [length, result] }).cast(x.dtype));
  if (axis === x.rank - 1) return matmul(x, matrix(map));
  const [lead, rest] = [x.shape.slice(0, axis), x.shape.slice(axis + 1)];
  const flat = reshape(x, [sizeOf(lead), map.length, sizeOf(rest)]);
  return reshape(matmul(matrix(transposeMap(map)), flat), [...lead, map.result, ...rest], [x]);
}
