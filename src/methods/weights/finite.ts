import { asWeight } from "../../nn/index.ts";
import { ArgumentError, isHostTensor } from "../../tensor/index.ts";
import { denseValues } from "./report.ts";
import type { DecoderSource } from "./source.ts";

/** The same source, which refuses weights that are not finite, by name, with an ArgumentError when they are read. */
export function finiteSource(source: DecoderSource): DecoderSource {
  return {
    ...source,
    async read(name) {
      const weight = await source.read(name);
      const { data } = isHostTensor(weight) ? weight : await denseValues(asWeight(weight));
      const bad = (data as Float32Array).findIndex((v) => !Number.isFinite(v));
      if (bad >= 0) throw new ArgumentError(`"${name}" holds ${data[bad]} at entry ${bad}; the model is damaged`);
      return weight;
    },
  };
}
