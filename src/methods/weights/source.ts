import { checkWeights, type DecoderConfig, type StoredWeights, type Weights } from "../../models/index.ts";
import { Dense, Weight } from "../../nn/index.ts";
import { ArgumentError, type HostTensor, isHostTensor } from "../../tensor/index.ts";
import type { HalfPrecision } from "./half.ts";

/** A decoder whose weights come one by one, so that a model larger than memory can be walked. */
export interface DecoderSource {
  readonly config: DecoderConfig;
  /** The weight of that name, under Hugging Face's names: matrices as `Weight`, vectors in `f32`. */
  read(name: string): Promise<Weight | HostTensor>;
  /** The half precision that a dense weight is stored in, if it is; absent: none is. */
  half?(name: string): HalfPrecision | null;
}

/** Weights in memory as a source. @throws ModelError where they do not belong to the configuration */
export function memorySource({
  config,
  weights,
}: {
  readonly config: DecoderConfig;
  readonly weights: Weights;
}): DecoderSource {
  checkWeights(config, weights);
  return {
    config,
    async read(name) {
      const weight = weights[name]!;
      if (weight instanceof Weight) return weight;
      if (!isHostTensor(weight)) throw new ArgumentError(`"${name}" is symbolic; compression needs its numbers`);
      return weight.shape.length === 2 ? new Dense(weight) : weight.cast("f32");
    },
  };
}

/** Stored weights as a source; each is read, dense ones in `f32`, when its turn comes. */
export function storedSource(config: DecoderConfig, stored: StoredWeights): DecoderSource {
  return {
    config,
    async read(name) {
      const weight = await stored.get(name)!.read();
      if (weight instanceof Weight) return weight;
      const tensor = weight.cast("f32");
      return tensor.shape.length === 2 ? new Dense(tensor) : tensor;
    },
    half(name) {
      const { outline } = stored.get(name)!;
      const dtype = outline instanceof Weight ? null : outline.dtype;
      return dtype === "f16" || dtype === "bf16" ? dtype : null;
    },
  };
}
