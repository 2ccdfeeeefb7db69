import type { Report, Variant } from "../../src/report/index.ts";

const matrices = [0, 1].flatMap((layer) =>
  ["self_attn.q_proj", "mlp.up_proj"].map((name) => `model.layers.${layer}.${name}.weight`),
);

function variant(name: string, bytes: number, perplexity: number, more: Partial<Variant> = {}): Variant {
  return {
    name,
    bytes,
    bitsPerWeight: bytes / 1e6,
    perplexity: { value: perplexity, low: perplexity - 1, high: perplexity + 1 },
    kl: null,
    topAgreement: null,
    speed: null,
    peakBytes: null,
    loadSeconds: null,
    layerErrors: {},
    sample: " there was",
    ...more,
  };
}

/** A small report with every part. */
export const example: Report = {
  title: "a <model>, compressed",
  machine: "two cores",
  text: { name: "held-out.txt", tokens: 12345 },
  prompt: "Once",
  variants: [
    variant("original", 20e6, 30, { speed: { prefill: 900, decode: 100 } }),
    variant("4 bits", 4e6, 33, {
      speed: { prefill: 1900, decode: 300 },
      kl: { value: 0.05, low: 0.04, high: 0.06 },
      topAgreement: { value: 0.9, low: 0.89, high: 0.91 },
      layerErrors: Object.fromEntries(matrices.map((name, i) => [name, 0.1 + i / 100])),
      sample: " </script><b>upon a time",
    }),
    variant("/home/somebody/models/a-name-that-somebody-gave-without-any-thought-of-phones-2bit", 2e6, 300, {
      speed: { prefill: 1800, decode: 310 },
    }),
  ],
  histograms: [
    { title: "Weights of 0 mlp.up", edges: [-1, 0, 1], counts: { original: [3, 1000], "4 bits": [0, 1003] } },
  ],
  cache: {
    variant: "4 bits",
    tokens: 255,
    bytesPerToken: { f32: 8192, int8: 2304 },
    perplexity: { f32: 33, int8: 33.01 },
    kl: 2.5e-5,
    topAgreement: 0.996,
  },
  sensitivity: [
    {
      format: "4bit",
      increase: Object.fromEntries(matrices.map((name, i) => [name, 0.001 * (i + 1)])),
      chosen: matrices.slice(0, 2),
    },
  ],
};
