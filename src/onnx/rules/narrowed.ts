import { ArgumentError, findOp, staticDim, type Tensor, transpose } from "../../tensor/index.ts";
import { apply, before, type Rule, without } from "./rule.ts";

/** Operators that the table of operations has in a narrower form. */
export const narrowedRules: readonly Rule[] = [
  /** onnxruntime's kernel wants images and an odd size. */
  {
    names: ["LRN"],
    build: (node) => {
      const [normalized] = apply(node);
      const suits = normalized!.rank === 4 && (node.attrs.size as number) % 2 === 1;
      return suits ? [normalized!] : findOp("LRN")!.expand!(node.inputs, node.attrs, 1);
    },
  },
  /** Running statistics only: what training updates has no place in a function. */
  {
    names: ["BatchNormalization"],
    attrs: (version) => ({ ...before(7, { is_test: "int" })(version), ...before(9, { spatial: "int" })(version) }),
    build: (node) => {
      if (node.attrs.spatial === 0)
        throw new ArgumentError("it normalizes each place on its own (spatial = 0), which is not supported");
      if (node.attrs.training_mode === 1 || node.outputCount > 1)
        throw new ArgumentError("it is in training mode; export the model for inference");
      return apply({ ...node, attrs: without(node.attrs, "is_test", "spatial", "momentum", "training_mode") });
    },
  },
  /** Kernels know sequences with the length first only. */
  {
    names: ["RNN", "GRU", "LSTM"],
    attrs: () => ({ layout: "int" }),
    build: (node) => {
      const { layout, ...attrs } = node.attrs;
      if (layout !== 1) return apply({ ...node, attrs });
      const swap = (t: Tensor | null | undefined): Tensor | null => (t ? transpose(t, [1, 0, 2]) : null);
      const [x, w, r, b = null, lengths = null, h, c, ...peepholes] = node.inputs;
      const inputs = [swap(x), w!, r!, b, lengths, swap(h), ...(node.op === "LSTM" ? [swap(c), ...peepholes] : [])];
      const [all, ...last] = apply({ ...node, inputs, attrs });
      return [transpose(all!, [2, 0, 1, 3]), ...last.map((t) => swap(t)!)];
    },
  },
  /** The size of the result may be given in place of the padding, half of which (the larger, by default) goes behind. */
  {
    names: ["ConvTranspose"],
    attrs: () => ({ output_shape: "ints" }),
    build: (node) => {
      const { output_shape, auto_pad, ...attrs } = node.attrs;
      if (output_shape === undefined) return apply(node);
      const [x, w] = node.inputs as [Tensor, Tensor];
      const list = (name: string, byDefault: number, i: number): number =>
        (attrs[name] as readonly number[] | undefined)?.[i] ?? byDefault;
      const totals = (output_shape as readonly number[]).map((size, i) => {
        const reach = list("dilations", 1, i) * (staticDim(w, i + 2) - 1) + 1;
        return list("strides", 1, i) * (staticDim(x, i + 2) - 1) + list("output_padding", 0, i) + reach - size;
      });
      // What the windows do not reach is added as padding of the output.
      const halves = totals
        .map((t) => Math.max(0, t))
        .map((t): [number, number] => [Math.floor(t / 2), Math.ceil(t / 2)]);
      const pads = halves.map(([less, more]) =>
        auto_pad === "SAME_UPPER" || auto_pad === undefined ? [less, more] : [more, less],
      );
      const output_padding = totals.map((t, i) => list("output_padding", 0, i) + Math.max(0, -t));
      return apply({
        ...node,
        attrs: { ...attrs, pads: [...pads.map((p) => p[0]!), ...pads.map((p) => p[1]!)], output_padding },
      });
    },
  },
  /** `...` stands for the leading axes that all operands with it share; each gets a letter of its own. */
  {
    names: ["Einsum"],
    build: (node) => {
      const equation = (node.attrs.equation as string | undefined)?.replaceAll(" ", "");
      if (!equation?.includes("...")) return apply(node);
      const terms = equation.split("->")[0]!.split(",");
      const ranks = terms.map((term, i) => (term.includes("...") ? node.inputs[i]!.rank - term.length + 3 : 0));
      const letters = [..."ABCDEFGHIJKLMNOPQRSTUVWXYZ"].filter((letter) => !equation.includes(letter));
      const most = Math.max(...ranks);
      if (most > letters.length || terms.some((term, i) => term.includes("...") && ranks[i] !== most))
        throw new ArgumentError(`its operands have different numbers of axes in "${equation}"`);
      return apply({ ...node, attrs: { equation: equation.replaceAll("...", letters.slice(0, most).join("")) } });
    },
  },
];
