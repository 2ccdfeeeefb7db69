import { formatShape } from "../dims.ts";
import { isFloat } from "../dtype.ts";
import { ArgumentError, DTypeError, GraphError, ShapeError } from "../errors.ts";
import { HostTensor } from "../host.ts";
import {
  type Attrs,
  asTensor,
  constant,
  constantOf,
  defineOp,
  ints,
  op,
  staticDim,
  type Tensor,
  type TensorLike,
} from "../tensor.ts";
import { add, cast, cos, mul, neg, sin, sub } from "./elementwise.ts";
import { gather } from "./gather.ts";
import { concat, reshape, slice, split, squeeze, stack, unsqueeze } from "./shape.ts";
