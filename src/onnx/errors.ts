import { PareError } from "../tensor/errors.ts";

/** An ONNX file that cannot be read or written as asked. */
export class OnnxError extends PareError {
  override readonly code = "ONNX";
}
