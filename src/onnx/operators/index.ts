import type { OpDef } from "../../tensor/index.ts";
import { elementaryOperators } from "./elementary.ts";
import { quantizedOperators } from "./quantized.ts";
import { recurrentOperators } from "./recurrent.ts";
import { samplingOperators } from "./sampling.ts";
import { selectiveOperators } from "./selective.ts";

/** Operations of the standard that only imported models use. */
export const importedOperators: readonly OpDef[] = [
  ...elementaryOperators,
  ...quantizedOperators,
  ...recurrentOperators,
  ...samplingOperators,
  ...selectiveOperators,
];
