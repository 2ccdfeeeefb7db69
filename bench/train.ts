import { type Entry, type Measured, median } from "./harness.ts";
import { batch, flopsPerStep } from "./model.ts";
import { productFlops } from "./matmul.ts";
