import { ArgumentError, type HostTensor, type Rng } from "../tensor/index.ts";
import { qr } from "./qr.ts";

/**
 * A random orthogonal matrix `[n, n]` in f32, every one equally likely (Haar measure): the `Q` of a normal matrix whose
 * `R` has a positive diagonal (Mezzadri 2007).
 * @throws ArgumentError for a size that is not a whole number from 1.
 */
export async function randomOrthogonal(rng: Rng, n: number): Promise<HostTensor> {
  if (!Number.isSafeInteger(n) || n < 1)
    throw new ArgumentError(`a random orthogonal matrix has a whole number of rows from 1, not ${n}`);
  const { q } = await qr(rng.normalTensor([n, n], { dtype: "f64" }));
  return q.cast("f32");
}
