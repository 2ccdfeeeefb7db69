import {
  ArgumentError,
  add,
  cast,
  constant,
  constantOf,
  div,
  fill,
  HostTensor,
  identity,
  ints,
  maximum,
  minimum,
  scalar,
  type Tensor,
} from "../../tensor/index.ts";
import { nllLoss, softmaxCrossEntropy } from "./losses.ts";
import { apply, before, type Kinds, type Rule } from "./rule.ts";

const present = (inputs: readonly (Tensor | null)[]): Tensor[] => inputs.filter((t): t is Tensor => t !== null);

/** Any number of operands, taken in pairs. */
const folded = (name: string, pair: (a: Tensor, b: Tensor) => Tensor): Rule => ({
  names: [name],
  arity: [1, Number.POSITIVE_INFINITY],
  build: ({ inputs }) => [present(inputs).reduce(pair)],
});

const lossAttrs = (): Kinds => ({ ignore_index: "int", reduction: "string" });

/** Operators that are made of others. */
export const composedRules: readonly Rule[] = [
  folded("Sum", add),
  // Their gradient is that of pairs.
  folded("Max", maximum),
  folded("Min", minimum),
  {
    names: ["CastLike"],
    arity: [2, 2],
    attrs: () => ({ saturate: "int" }),
    build: ({ inputs: [x, like] }) => [cast(x!, like!.dtype)],
  },
  {
    names: ["Dropout"],
    arity: [1, 3],
    attrs: (version) => ({ ...before(12, { ratio: "float", is_test: "int" })(version), seed: "int" }),
    build: ({ inputs, outputCount, version }) => {
      const x = inputs[0]!;
      const training = inputs[2];
      if (training && constantOf(training)?.at(0) !== 0)
        throw new ArgumentError("it is in training mode; export the model for inference");
      const kept = identity(x);
      return outputCount === 1 ? [kept] : [kept, fill(1, x.shape, version < 10 ? x.dtype : "bool", [x])];
    },
  },
  {
    names: ["Scatter"],
    arity: [3, 3],
    attrs: () => ({ axis: "int" }),
    build: (node) => apply({ ...node, op: "ScatterElements" }),
  },
  {
    names: ["Mean"],
    arity: [1, Number.POSITIVE_INFINITY],
    build: ({ inputs }) => [
      div(
        present(inputs).reduce((a, b) => add(a, b)),
        present(inputs).length,
      ),
    ],
  },
  {
    names: ["NegativeLogLikelihoodLoss"],
    arity: [2, 3],
    attrs: lossAttrs,
    build: ({ inputs: [scores, target, weight], attrs }) => [nllLoss(scores!, target!, weight, attrs)],
  },
  {
    names: ["SoftmaxCrossEntropyLoss"],
    arity: [2, 3],
    attrs: lossAttrs,
    build: ({ inputs: [scores, target, weight], attrs }) => softmaxCrossEntropy(scores!, target!, weight, attrs),
  },
  {
    names: ["Constant"],
    attrs: () => ({ value_float: "float", value_floats: "floats", value_int: "int", value_ints: "ints" }),
    build: ({ attrs }) => {
      const { value, value_float, value_floats, value_int, value_ints } = attrs;
      const given = [value, value_float, value_floats, value_int, value_ints].filter((v) => v !== undefined);
      if (given.length !== 1) throw new ArgumentError(`it has ${given.length} values`);
      if (value !== undefined) return [constant(value as HostTensor)];
      if (value_ints !== undefined) return [ints(value_ints as readonly number[])];
      if (value_int !== undefined) return [scalar(value_int as number, "i64")];
      if (value_float !== undefined) return [scalar(value_float as number)];
      return [constant(HostTensor.from(Float32Array.from(value_floats as readonly number[])))];
    },
  },
];
