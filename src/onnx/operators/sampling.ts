import { formatShape, type OpDef, ShapeError } from "../../tensor/index.ts";

/** Reading images at places that other tensors give. */
export const samplingOperators: readonly OpDef[] = [
  {
    name: "GridSample",
    attrs: { align_corners: "int", mode: "string", padding_mode: "string" },
    arity: [2, 2],
    infer: ({ input }) => {
      const [x, grid] = [input(0), input(1)];
      if (grid.rank !== x.rank || grid.shape.at(-1) !== x.rank - 2)
        throw new ShapeError(`places ${formatShape(grid.shape)} do not fit ${formatShape(x.shape)}`);
      return [{ dtype: x.dtype, shape: [x.shape[0]!, x.shape[1]!, ...grid.shape.slice(1, -1)] }];
    },
  },
  {
    name: "RoiAlign",
    attrs: {
      coordinate_transformation_mode: "string",
      mode: "string",
      output_height: "int",
      output_width: "int",
      sampling_ratio: "int",
      spatial_scale: "float",
    },
    arity: [3, 3],
    infer: ({ input, attrs }) => {
      const [x, boxes] = [input(0), input(1)];
      if (x.rank !== 4 || boxes.rank !== 2)
        throw new ShapeError(
          `it takes images and boxes [boxes, 4], not ${formatShape(x.shape)} and ${formatShape(boxes.shape)}`,
        );
      const size = (name: string): number => (attrs[name] as number | undefined) ?? 1;
      return [{ dtype: x.dtype, shape: [boxes.shape[0]!, x.shape[1]!, size("output_height"), size("output_width")] }];
    },
  },
];
