import { checkWeights, type DecoderConfig, type StoredWeights, type Weights } from "../../models/index.ts";
import { Dense, HalfWeight, Weight } from "../../nn/index.ts";
import { ArgumentError, type HostTensor, isHostTensor } from "../../tensor/index.ts";

/** A decoder whose weights come one by one, so that a model larger than memory can be walked. */
export interface DecoderSource {
  readonly config: DecoderConfig;
  /** The weight of that name, under Hugging Face's names: matrices as `Weight`, vectors in `f32`. */
  read(name: string): Promise<Weight | HostTensor>;
  /** A matrix in the precision that it is stored in, for what is left as it is; absent: as `read` has it. */
  original?(name: string): Promise<Weight>;
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
    async original(name) {
      const weight = await stored.get(name)!.read();
      if (weight instanceof Weight) return weight;
      const half = weight.dtype === "f16" || weight.dtype === "bf16";
      return half ? new HalfWeight(weight) : new Dense(weight.cast("f32"));
    },
  };
}
