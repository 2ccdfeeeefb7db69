import { ArgumentError, applyOp, constant, constantOf, HostTensor, type Tensor } from "../../tensor/index.ts";
import { apply, type ForeignNode, type Rule } from "./rule.ts";

/** As in set 10: places count from the first entry, and the nearest is the one before (behind, where it shrinks). */
function resizeAsIn10({ attrs }: ForeignNode, x: Tensor, scales: Tensor): readonly Tensor[] {
  const factors = constantOf(scales)?.toArray();
  if (!factors) throw new ArgumentError("its scales depend on data");
  const shrinks = factors.some((f) => f < 1);
  if (shrinks && factors.some((f) => f > 1))
    throw new ArgumentError("it enlarges some axes and shrinks others, which set 10 left open");
  return applyOp("Resize", [x, null, scales], {
    mode: attrs.mode ?? "nearest",
    coordinate_transformation_mode: "asymmetric",
    nearest_mode: shrinks ? "ceil" : "floor",
  });
}

export const resizeRules: readonly Rule[] = [
  {
    names: ["Resize"],
    build: (node) => {
      const [x, scales] = node.inputs;
      if (node.version < 11) return resizeAsIn10(node, x!, scales!);
      if (node.attrs.coordinate_transformation_mode === "tf_half_pixel_for_nn")
        throw new ArgumentError('its coordinates "tf_half_pixel_for_nn" left the format with set 13');
      return apply(node);
    },
  },
  {
    names: ["Upsample"],
    arity: [1, 2],
    attrs: (version) => (version < 9 ? { mode: "string", scales: "floats" } : { mode: "string" }),
    build: (node) => {
      const [x, scales] = node.inputs;
      const listed = node.attrs.scales as readonly number[] | undefined;
      const given = scales ?? (listed && constant(HostTensor.from(Float32Array.from(listed))));
      if (!given) throw new ArgumentError("it has no scales");
      return resizeAsIn10(node, x!, given);
    },
  },
];
