import type { InputStatistics } from "../../../src/methods/index.ts";
import { HostTensor, Rng } from "../../../src/tensor/index.ts";

/** A matrix with inputs of which neighbours go together, as activations do. */
export function job(seed: number, out: number, width: number, samples: number) {
  const rng = new Rng(seed);
  const latent = Math.ceil(width / 3);
  const mixing = rng.normalTensor([latent, width]);
  const noise = 0.3;
  const x = new Float64Array(samples * width);
  for (let s = 0; s < samples; s++) {
    const z = Array.from({ length: latent }, () => rng.normal());
    for (let i = 0; i < width; i++) {
      let value = rng.normal(0, noise);
      for (let k = 0; k < latent; k++) value += (z[k]! * mixing.at(k * width + i)) / Math.sqrt(latent);
      x[s * width + i] = value;
    }
  }
  return jobOn(x, rng.normalTensor([out, width]), samples);
}

function jobOn(x: Float64Array, weight: HostTensor, count: number) {
  const width = weight.shape[1]!;
  const gram = HostTensor.zeros("f32", [width, width]);
  for (let i = 0; i < width; i++)
    for (let j = 0; j < width; j++) {
      let total = 0;
      for (let s = 0; s < count; s++) total += x[s * width + i]! * x[s * width + j]!;
      gram.set(i * width + j, total);
    }
  const channel = HostTensor.zeros("f32", [width]);
  const inputs: InputStatistics = { point: "in", count, gram, absMean: channel, absMax: channel };
  const notes: string[] = [];
  return {
    name: "w",
    weight,
    inputs,
    rng: new Rng(0),
    device: { threads: 1 },
    notes,
    note: (remark: string) => notes.push(remark),
  };
}

/** The inverse of a symmetric positive definite matrix, by elimination. */
export function inverse(h: readonly number[][]): number[][] {
  const n = h.length;
  const rows = h.map((row, i) => [...row, ...row.map((_, j) => (i === j ? 1 : 0))]);
  for (let p = 0; p < n; p++) {
    const pivot = rows[p]![p]!;
    rows[p] = rows[p]!.map((v) => v / pivot);
    for (let i = 0; i < n; i++) {
      const factor = rows[i]![p]!;
      if (i !== p) rows[i] = rows[i]!.map((v, j) => v - factor * rows[p]![j]!);
    }
  }
  return rows.map((row) => row.slice(n));
}
