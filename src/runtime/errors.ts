import { PareError } from "../tensor/index.ts";

/** A device that cannot be used here. */
export class DeviceError extends PareError {
  override readonly code = "DEVICE";
}

/** What a program was called with does not fit what it was compiled for. */
export class FeedError extends PareError {
  override readonly code = "FEED";
}

/** onnxruntime refused to build or run a program. */
export class RuntimeFailure extends PareError {
  override readonly code = "RUNTIME";
}

/** A program used after its `dispose`. */
export class DisposedError extends PareError {
  override readonly code = "DISPOSED";
}
