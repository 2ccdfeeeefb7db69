import { ArgumentError, HostTensor, matmul, reshape, type Tensor } from "../../tensor/index.ts";

/** Up to this size, one product with the matrix itself is fastest. */
const DIRECT = 64;

const matrices = new Map<number, HostTensor>();

/** The Sylvester-Hadamard matrix `[size, size]` of a power of two, scaled to be orthogonal; it is symmetric. */
function hadamardMatrix(size: number): HostTensor {
  let found = matrices.get(size);
  if (!found) {
    const values = new Float32Array(size * size);
    for (let i = 0; i < size; i++)
      for (let j = 0; j < size; j++) {
        let sign = 1;
        for (let common = i & j; common !== 0; common &= common - 1) sign = -sign;
        values[i * size + j] = sign / Math.sqrt(size);
      }
    found = HostTensor.from(values, { shape: [size, size] });
    matrices.set(size, found);
  }
  return found;
}

/**
 * The orthonormal Walsh-Hadamard transform of every `size` neighbours along the last axis, its own inverse. Large ones
 * are products from both sides, as the matrix of `a * b` is the Kronecker product of those of `a` and `b`.
 * @throws ArgumentError where the size is no power of two that divides the axis.
 */
export function hadamard(x: Tensor, size: number): Tensor {
  const width = x.shape[x.rank - 1] as number;
  if (!Number.isInteger(Math.log2(size)) || width % size !== 0)
    throw new ArgumentError(
      `a Hadamard transform of ${width} entries has a power of two that divides them, not ${size}`,
    );
  const front = x.shape.slice(0, -1);
  if (size <= DIRECT) {
    const blocks = reshape(x, [...front, width / size, size], [x]);
    return reshape(matmul(blocks, hadamardMatrix(size)), x.shape, [x]);
  }
  const inner = 2 ** Math.ceil(Math.log2(size) / 2);
  const blocks = reshape(x, [...front, width / size, size / inner, inner], [x]);
  const turned = matmul(hadamardMatrix(size / inner), matmul(blocks, hadamardMatrix(inner)));
  return reshape(turned, x.shape, [x]);
}
