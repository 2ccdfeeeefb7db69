/** Dense linear algebra on host tensors: factors, eigenvalues, singular values, orthogonal matrices. */
export * from "./cholesky.ts";
export { eigh } from "./eigh.ts";
export * from "./errors.ts";
export * from "./hadamard.ts";
export { qr } from "./qr.ts";
export * from "./random-orthogonal.ts";
export { type Svd, svd } from "./svd.ts";
export { solveTriangular, type TriangularOptions } from "./triangular.ts";
export { truncatedSvd } from "./truncated-svd.ts";
