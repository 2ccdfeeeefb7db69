import {
  ArgumentError,
  type Attrs,
  add,
  fill,
  flip,
  formatShape,
  matmul,
  mul,
  type OpDef,
  ShapeError,
  sameShape,
  sigmoid,
  slice,
  split,
  squeeze,
  stack,
  staticDim,
  sub,
  type Tensor,
  tanh,
  transpose,
} from "../../tensor/index.ts";

/** The weights of one direction: `W [gates * hidden, in]`, `R [gates * hidden, hidden]`, and their biases if any. */
interface Weights {
  readonly r: Tensor;
  readonly recurrentBias: Tensor | undefined;
  /** Weights from the cell state to the gates, `[3 * hidden]` (Gers and Schmidhuber 2000). */
  readonly peepholes: Tensor | undefined;
}

/** A kind of recurrent layer. */
interface Cell {
  readonly name: string;
  /** Matrices stacked in W and R. */
  readonly gates: number;
  /** Activations by default, as many as a direction has. */
  readonly activations: readonly string[];
  readonly attrs?: OpDef["attrs"];
  /** Next states from the projected input `[batch, gates * hidden]` and the states before, each `[batch, hidden]`. */
  step(projected: Tensor, states: readonly Tensor[], weights: Weights, attrs: Attrs): readonly Tensor[];
}

const recurrent = (h: Tensor, r: Tensor, bias: Tensor | undefined): Tensor => {
  const product = matmul(h, transpose(r));
  return bias ? add(product, bias) : product;
};

const cells: readonly Cell[] = [
  {
    name: "RNN",
    gates: 1,
    activations: ["Tanh"],
    step: (projected, [h], { r, recurrentBias }) => [tanh(add(projected, recurrent(h!, r, recurrentBias)))],
  },
  {
    name: "GRU",
    gates: 3,
    activations: ["Sigmoid", "Tanh"],
    attrs: { linear_before_reset: "int" },
    step: (projected, [h], { r, recurrentBias }, attrs) => {
      const [xz, xr, xh] = split(projected, 3) as [Tensor, Tensor, Tensor];
      const [rz, rr, rh] = split(r, 3, 0) as [Tensor, Tensor, Tensor];
      const [bz, br, bh] = recurrentBias ? split(recurrentBias, 3) : [];
      const update = sigmoid(add(xz, recurrent(h!, rz, bz)));
      const reset = sigmoid(add(xr, recurrent(h!, rr, br)));
      const past =
        attrs.linear_before_reset === 1 ? mul(reset, recurrent(h!, rh, bh)) : recurrent(mul(reset, h!), rh, bh);
      const candidate = tanh(add(xh, past));
      return [add(mul(sub(1, update), candidate), mul(update, h!))];
    },
  },
  {
    name: "LSTM",
    gates: 4,
    activations: ["Sigmoid", "Tanh", "Tanh"],
    attrs: { input_forget: "int" },
    step: (projected, [h, c], { r, recurrentBias, peepholes }, attrs) => {
      if (attrs.input_forget === 1) throw new ArgumentError("coupled input and forget gates have no gradient here");
      const [i, o, f, g] = split(add(projected, recurrent(h!, r, recurrentBias)), 4) as [
        Tensor,
        Tensor,
        Tensor,
        Tensor,
      ];
      const [pi, po, pf] = peepholes ? split(peepholes, 3) : [];
      const peek = (gate: Tensor, cell: Tensor, weight: Tensor | undefined): Tensor =>
        sigmoid(weight ? add(gate, mul(weight, cell)) : gate);
      const next = add(mul(peek(f, c!, pf), c!), mul(peek(i, c!, pi), tanh(g)));
      return [mul(peek(o, next, po), tanh(next)), next];
    },
  },
];

const directionsOf = (attrs: Attrs): number => (attrs.direction === "bidirectional" ? 2 : 1);

/** Inputs: X `[length, batch, in]`, W, R, B, lengths, initial states, peepholes. */
function define({ name, gates, activations, attrs: own, step }: Cell): OpDef {
  const states = name === "LSTM" ? 2 : 1;
  return {
    name,
    attrs: {
      activation_alpha: "floats",
      activation_beta: "floats",
      activations: "strings",
      clip: "float",
      direction: "string",
      hidden_size: "int",
      ...own,
    },
    arity: [3, name === "LSTM" ? 8 : 6],
    infer: ({ input, attrs, outputCount }) => {
      const [x, w, r] = [input(0), input(1), input(2)];
      if (x.rank !== 3 || w.rank !== 3 || r.rank !== 3)
        throw new ShapeError(`it takes a sequence and weights with three dimensions, not ${formatShape(x.shape)}`);
      const directions = directionsOf(attrs);
      const hidden = r.shape[2]!;
      const rows = typeof hidden === "number" ? gates * hidden : w.shape[1]!;
      const fits =
        sameShape(w.shape, [directions, rows, x.shape[2]!]) && sameShape(r.shape, [directions, rows, hidden]);
      if (!fits)
        throw new ShapeError(
          `weights ${formatShape(w.shape)} and ${formatShape(r.shape)} do not fit ${formatShape(x.shape)}`,
        );
      const [length, batch] = [x.shape[0]!, x.shape[1]!];
      const last = [directions, batch, hidden];
      return [[length, ...last], last, last].slice(0, outputCount).map((shape) => ({ dtype: x.dtype, shape }));
    },
    expand: (inputs, attrs, outputCount) => {
      const [x, w, r, b, lengths] = inputs;
      if (lengths) throw new ArgumentError(`${name} with sequence lengths has no gradient here`);
      if (attrs.clip !== undefined) throw new ArgumentError(`${name} with clipping has no gradient here`);
      const directions = directionsOf(attrs);
      const expected = Array.from({ length: directions }, () => activations).flat();
      const given = (attrs.activations as readonly string[] | undefined) ?? expected;
      if (given.join().toLowerCase() !== expected.join().toLowerCase())
        throw new ArgumentError(`${name} with the activations ${given.join(", ")} has no gradient here`);
      const results = Array.from({ length: directions }, (_, d) => {
        const part = (t: Tensor): Tensor => squeeze(slice(t, 0, d, d + 1), 0);
        const [inputBias, recurrentBias] = b ? split(part(b), 2) : [];
        const weights = { r: part(r!), recurrentBias, peepholes: inputs[7] ? part(inputs[7]) : undefined };
        const zeros = fill(0, [x!.shape[1]!, r!.shape[2]!], x!.dtype, [x!, r!]);
        const start = Array.from({ length: states }, (_, i) => (inputs[5 + i] ? part(inputs[5 + i]!) : zeros));
        const reverse = attrs.direction === "reverse" || d === 1;
        return unroll(x!, part(w!), inputBias, reverse, start, (p, s) => step(p, s, weights, attrs));
      });
      const outputs = [
        stack(
          results.map((s) => s.all),
          1,
        ),
        ...Array.from({ length: states }, (_, i) =>
          stack(
            results.map((s) => s.last[i]!),
            0,
          ),
        ),
      ];
      return outputs.slice(0, outputCount);
    },
  };
}

/** Runs a cell along a sequence `[length, batch, in]` of known length. */
function unroll(
  sequence: Tensor,
  w: Tensor,
  bias: Tensor | undefined,
  reverse: boolean,
  start: readonly Tensor[],
  step: (projected: Tensor, states: readonly Tensor[]) => readonly Tensor[],
): { all: Tensor; last: readonly Tensor[] } {
  const length = staticDim(sequence, 0);
  const product = matmul(reverse ? flip(sequence, 0) : sequence, transpose(w));
  const projected = bias ? add(product, bias) : product;
  const steps: Tensor[] = [];
  let states = start;
  for (let t = 0; t < length; t++) {
    states = step(squeeze(slice(projected, 0, t, t + 1), 0), states);
    steps.push(states[0]!);
  }
  const all = stack(steps, 0);
  return { all: reverse ? flip(all, 0) : all, last: states };
}

/** Recurrent layers: one kernel when run, unrolled over the sequence's length when differentiated. */
export const recurrentOperators: readonly OpDef[] = cells.map(define);
