import {
  ArgumentError,
  add,
  cast,
  equal,
  greater,
  HostTensor,
  less,
  mul,
  reshape,
  square,
  staticDim,
  sum,
  type Tensor,
  unsqueeze,
} from "../../../tensor/index.ts";

/** Pairs of a group, and how many of them stay. */
const PAIRS = 4;
const KEPT = 2;

/**
 * `x [..., n]` with zeros in place of the two pairs of neighbours, of every four, that have the smaller norms in `values`;
 * of equal ones the later (QuEST, section 4.3: 2:4 sparsity in pairs).
 * @throws ArgumentError where `n` is no multiple of 8
 */
export function keepLargerPairs(x: Tensor, values: Tensor): Tensor {
  const width = staticDim(values, -1);
  if (width % (2 * PAIRS) !== 0)
    throw new ArgumentError(`2:4 sparsity in pairs needs rows of a multiple of ${2 * PAIRS} entries, not ${width}`);
  const front = values.shape.slice(0, -1);
  const groups = (t: Tensor): Tensor => reshape(t, [...front, width / (2 * PAIRS), PAIRS, 2], [values]);
  const energy = sum(square(groups(values)), { axes: [-1] });
  const [own, other] = [unsqueeze(energy, -1), unsqueeze(energy, -2)];
  const larger = add(cast(greater(other, own), "f32"), mul(cast(equal(other, own), "f32"), earlier));
  const rank = sum(larger, { axes: [-1], keepDims: true });
  return reshape(mul(groups(x), cast(less(rank, KEPT), x.dtype)), values.shape, [values]);
}

/** `[i, j]`: 1 where pair `j` comes before pair `i`. */
const earlier = HostTensor.from(
  Float32Array.from({ length: PAIRS * PAIRS }, (_, at) => (at % PAIRS < Math.floor(at / PAIRS) ? 1 : 0)),
  { shape: [PAIRS, PAIRS] },
);
