import { describe, expect, it } from "vitest";
import { checkModel, OnnxError } from "../../src/onnx/index.ts";
import {
  type AttributeProto,
  attributeType,
  type ModelProto,
  type NodeProto,
  type TensorProto,
} from "../../src/onnx/schema.ts";
import { encodeModel } from "../../src/onnx/wire.ts";
import { HostTensor } from "../../src/tensor/index.ts";
import { foreignProto, node, noiseTensor, port } from "../support/foreign-model.ts";

/** A model that breaks no rule: one node, one weight. */
function sound(): ModelProto {
  return foreignProto({
    nodes: [node("Gemm", ["x", "w"], ["h"], { transB: 1 }), node("Softmax", ["h"], ["y"], { axis: -1 })],
    inputs: [port("x", "f32", ["batch", 3])],
    outputs: [port("y", "f32", ["batch", 4])],
    weights: { w: noiseTensor([4, 3], 1) },
  });
}

type Change = (model: ModelProto & { graph: NonNullable<ModelProto["graph"]> }) => void;

const nodes = (model: ModelProto): NodeProto[] => model.graph!.node!;
const weight = (model: ModelProto): TensorProto => model.graph!.initializer![0]!;
const attribute = (model: ModelProto): AttributeProto => nodes(model)[0]!.attribute![0]!;

describe("checkModel", () => {
  it("accepts a sound model as bytes and as a message", () => {
    expect(() => checkModel(encodeModel(sound()))).not.toThrow();
    expect(() => checkModel(sound())).not.toThrow();
  });

  const accepted: [string, Change][] = [
    [
      "a standard domain under its other name",
      (m) => m.opsetImport!.push({ domain: "ai.onnx.ml", version: 3 }) && (nodes(m)[0]!.domain = "ai.onnx"),
    ],
    ["an initializer that is an input, too", (m) => m.graph.input!.push(port("w", "f32", [4, "n"]))],
    ["an optional input that is left out", (m) => nodes(m)[0]!.input!.push("")],
    [
      "an unknown operator of a declared domain",
      (m) =>
        m.opsetImport!.push({ domain: "acme", version: 1 }) &&
        Object.assign(nodes(m)[1]!, { domain: "acme", attribute: [{ name: "q", type: 1, f: 1 }] }),
    ],
    ["attributes without a type, as the first files had them", (m) => delete attribute(m).type],
    ["an attribute of value zero that was not written", (m) => delete attribute(m).i],
    ["values described without a type", (m) => (m.graph.valueInfo = [{ name: "h" }])],
    ["an unused output that is left out", (m) => nodes(m)[1]!.output!.push("")],
  ];
  it.each(accepted)("accepts %s", (_name, change) => {
    const model = sound();
    change(model as Parameters<Change>[0]);
    expect(() => checkModel(model)).not.toThrow();
  });

  const refused: [string, Change, string][] = [
    ["no IR version", (m) => delete m.irVersion, "the model does not say its IR version"],
    ["a newer IR version", (m) => (m.irVersion = 99), "the model has IR version 99; 1 to 13 are understood"],
    [
      "a newer operator set",
      (m) => (m.opsetImport![0]!.version = 99),
      "the model wants operator set 99; 1 to 26 are understood",
    ],
    ["no operator set", (m) => (m.opsetImport = []), "the model does not say its operator set"],
    [
      "two of one domain",
      (m) => m.opsetImport!.push({ domain: "ai.onnx", version: 9 }),
      'the operator set of the domain "" is declared twice',
    ],
    [
      "a set without a version",
      (m) => m.opsetImport!.push({ domain: "d" }),
      'the operator set of the domain "d" has no version',
    ],
    [
      "functions",
      (m) => (m.functions = [{}]),
      "the model defines functions of its own, which are not supported; export it with them inlined",
    ],
    [
      "a metadata key twice",
      (m) => (m.metadataProps = [{ key: "a" }, { key: "a" }]),
      'the metadata has the key "a" twice',
    ],
    ["no graph", (m) => delete (m as ModelProto).graph, "the model has no graph"],
    ["a graph without a name", (m) => delete m.graph.name, "the graph has no name"],
    [
      "sparse initializers",
      (m) => (m.graph.sparseInitializer = [{}]),
      "the graph has sparse initializers, which are not supported",
    ],

    ["an input without a name", (m) => delete m.graph.input![0]!.name, "an input has no name"],
    [
      "two inputs of one name",
      (m) => m.graph.input!.push(port("x", "f32", [])),
      'two values are called "x"; an input is one of them',
    ],
    ["an input without a type", (m) => delete m.graph.input![0]!.type, 'the input "x" has no type'],
    [
      "an input that is a sequence",
      (m) => (m.graph.input![0]!.type = { sequenceType: {} }),
      'the input "x" is a sequence; only tensors are supported',
    ],
    [
      "an input that is a sparse tensor",
      (m) => (m.graph.input![0]!.type = { sparseTensorType: {} }),
      'the input "x" is a sparse tensor; only tensors are supported',
    ],
    [
      "an input of text",
      (m) => (m.graph.input![0]!.type!.tensorType!.elemType = 8),
      'the input "x" has element type string, which pare does not handle',
    ],
    [
      "an input of no known type",
      (m) => (m.graph.input![0]!.type!.tensorType!.elemType = 77),
      'the input "x" has element type number 77, which pare does not handle',
    ],
    [
      "a negative dimension",
      (m) => (m.graph.input![0]!.type!.tensorType!.shape!.dim![1] = { dimValue: -3 }),
      'the input "x" has the dimension -3',
    ],
    [
      "absurd dimensions",
      (m) => (m.graph.input![0]!.type!.tensorType!.shape!.dim = [{ dimValue: 2 ** 40 }, { dimValue: 2 ** 40 }]),
      'the input "x" has shape [1099511627776, 1099511627776], more than the 4294967296 elements that are allowed',
    ],
    [
      "a dimension that is absurd beside a zero",
      (m) => (m.graph.input![0]!.type!.tensorType!.shape!.dim = [{ dimValue: 0 }, { dimValue: 2 ** 60 }]),
      `the input "x" has shape [0, ${2 ** 60}], more than the 4294967296 elements that are allowed`,
    ],
    [
      "a dimension that is two things",
      (m) => (m.graph.input![0]!.type!.tensorType!.shape!.dim![0] = { dimValue: 2, dimParam: "n" }),
      'the input "x" has a dimension that is both 2 and "n"',
    ],

    ["an initializer without a name", (m) => delete weight(m).name, "an initializer has no name"],
    ["two initializers of one name", (m) => m.graph.initializer!.push(weight(m)), 'two initializers are called "w"'],
    [
      "initializers beside the inputs of an old file",
      (m) => (m.irVersion = 3),
      'the initializer "w" is not among the inputs, as IR version 3 wants it',
    ],
    [
      "an initializer of another shape than its input",
      (m) => m.graph.input!.push(port("w", "f32", [4, 4])),
      'the initializer "w" differs in type from the input of that name',
    ],
    [
      "an initializer of another type than its input",
      (m) => m.graph.input!.push(port("w", "f16", [4, 3])),
      'the initializer "w" differs in type from the input of that name',
    ],
    [
      "too few bytes",
      (m) => (weight(m).rawData = new Uint8Array(47)),
      'the initializer "w" takes 48 bytes (12 elements of f32), but 47 are there',
    ],
    [
      "no data",
      (m) => delete weight(m).rawData,
      'the initializer "w" takes 48 bytes (12 elements of f32), but 0 are there',
    ],
    ["data in two places", (m) => (weight(m).floatData = [1]), 'the initializer "w" holds its data in 2 places'],
    [
      "data in the wrong list",
      (m) => Object.assign(weight(m), { rawData: undefined, int64Data: [1n] }),
      'the initializer "w" is f32 but holds int64Data',
    ],
    [
      "text in a tensor of numbers",
      (m) => (weight(m).stringData = [new Uint8Array(1)]),
      'the initializer "w" holds strings but is declared f32',
    ],
    [
      "a piece of a tensor",
      (m) => (weight(m).segment = {}),
      'the initializer "w" is a segment of a larger tensor, which is not supported',
    ],
    [
      "a tensor of text",
      (m) => (weight(m).dataType = 8),
      'the initializer "w" has element type string, which pare does not handle',
    ],
    [
      "a tensor without a type",
      (m) => delete weight(m).dataType,
      'the initializer "w" has element type undefined, which pare does not handle',
    ],
    ["negative tensor dimensions", (m) => (weight(m).dims = [-4, -3]), 'the initializer "w" has the dimension -4'],
    [
      "an unknown data location",
      (m) => (weight(m).dataLocation = 2),
      'the initializer "w" has the unknown data location 2',
    ],

    [
      "a node without an operator",
      (m) => delete nodes(m)[0]!.opType,
      'the node "" has the operator type "", which is not a name',
    ],
    [
      "an operator with a domain in its name",
      (m) => (nodes(m)[0]!.opType = "pare.Input"),
      'the node "" has the operator type "pare.Input", which is not a name',
    ],
    [
      "a node without inputs and outputs",
      (m) => nodes(m).push({ opType: "Relu", name: "r" }),
      'node "r" (Relu) has neither inputs nor outputs',
    ],
    [
      "an undeclared domain",
      (m) => (nodes(m)[1]!.domain = "acme"),
      'the acme.Softmax node that produces "y" is of the domain "acme", whose operator set the model does not declare',
    ],
    [
      "a value read before it is produced",
      (m) => nodes(m).reverse(),
      'the Softmax node that produces "y" reads "h" before anything has produced it',
    ],
    [
      "a value produced twice",
      (m) => nodes(m).push(node("Relu", ["x"], ["h"])),
      'two values are called "h"; the Relu node that produces "h" is one of them',
    ],
    [
      "an output that shadows an initializer",
      (m) => nodes(m).push(node("Relu", ["x"], ["w"])),
      'two values are called "w"; the Relu node that produces "w" is one of them',
    ],
    [
      "a needed input that is left out",
      (m) => nodes(m)[0]!.input!.splice(1, 1, ""),
      'the Gemm node that produces "h" leaves out its input 1, which the operator needs',
    ],
    [
      "too many inputs",
      (m) => nodes(m)[1]!.input!.push("x"),
      'the Softmax node that produces "y" has 2 inputs, which the operator does not take',
    ],

    [
      "an attribute without a name",
      (m) => delete attribute(m).name,
      'the Gemm node that produces "h" has an attribute without a name',
    ],
    [
      "an attribute given twice",
      (m) => nodes(m)[0]!.attribute!.push(attribute(m)),
      'the Gemm node that produces "h" has two attributes "transB"',
    ],
    [
      "an unknown attribute",
      (m) => (attribute(m).name = "transC"),
      'the attribute "transC" of the Gemm node that produces "h" is unknown to the operator',
    ],
    [
      "an attribute named like an object's own",
      (m) => (attribute(m).name = "constructor"),
      'the attribute "constructor" of the Gemm node that produces "h" is unknown to the operator',
    ],
    [
      "an attribute of another kind",
      (m) => nodes(m)[0]!.attribute!.splice(0, 1, { name: "transB", type: attributeType.float, f: 1 }),
      'the attribute "transB" of the Gemm node that produces "h" must be of kind int, not float',
    ],
    [
      "an attribute whose type is not that of its value",
      (m) => (attribute(m).type = attributeType.float),
      'the attribute "transB" of the Gemm node that produces "h" is declared as float but holds int',
    ],
    [
      "an attribute with two values",
      (m) => (attribute(m).f = 1),
      'the attribute "transB" of the Gemm node that produces "h" has several values: f, i',
    ],
    [
      "an attribute without type and value",
      (m) => nodes(m)[0]!.attribute!.splice(0, 1, { name: "transB" }),
      'the attribute "transB" of the Gemm node that produces "h" has no value',
    ],
    [
      "an attribute of an unknown type",
      (m) => (attribute(m).type = 44),
      'the attribute "transB" of the Gemm node that produces "h" has the unknown type 44',
    ],
    [
      "a reference to a function's attribute",
      (m) => (attribute(m).refAttrName = "outer"),
      'the attribute "transB" of the Gemm node that produces "h" refers to a function\'s attribute outside of a function',
    ],

    [
      "an output that nothing produces",
      (m) => m.graph.output!.push(port("z", "f32", [])),
      'nothing produces the output "z"',
    ],
    ["an output given twice", (m) => m.graph.output!.push(port("y", "f32", [])), 'two outputs are called "y"'],
    ["an output without a type", (m) => delete m.graph.output![0]!.type, 'the output "y" has no type'],
    ["a description without a name", (m) => (m.graph.valueInfo = [{}]), "a value description has no name"],
  ];
  it.each(refused)("refuses %s", (_name, change, reason) => {
    const model = sound();
    change(model as Parameters<Change>[0]);
    expect(() => checkModel(model)).toThrow(new OnnxError(reason));
  });

  it("allows what the caller allows", () => {
    expect(() => checkModel(sound(), { maxElements: 12 })).not.toThrow();
    expect(() => checkModel(sound(), { maxElements: 11 })).toThrow(/more than the 11 elements that are allowed/);
  });
});

describe("graphs inside of nodes", () => {
  /** A conditional whose branch reads a value from outside. */
  const withBranch = (branch: NodeProto[], output = "inner"): ModelProto => {
    const g = { name: "branch", node: branch, output: [{ name: output }] };
    const model = sound();
    model.graph!.initializer!.push({ name: "yes", dims: [], dataType: 9, rawData: new Uint8Array([1]) });
    const attributes = ["then_branch", "else_branch"].map((name) => ({ name, type: attributeType.graph, g }));
    model.graph!.node!.push({ opType: "If", input: ["yes"], output: ["z"], attribute: attributes });
    return model;
  };

  it("see the values around them", () => {
    expect(() => checkModel(withBranch([node("Relu", ["h"], ["inner"])]))).not.toThrow();
  });

  it("keep to the same rules", () => {
    expect(() => checkModel(withBranch([node("Relu", ["later"], ["inner"])]))).toThrow(
      'reads "later" before anything has produced it',
    );
    expect(() => checkModel(withBranch([node("Relu", ["h"], ["x"])]))).toThrow('two values are called "x"');
    expect(() => checkModel(withBranch([node("Relu", ["h"], ["inner"])], "other"))).toThrow(
      'nothing produces the output "other"',
    );
  });
});

describe("tensors inside of nodes", () => {
  it("keep to the same rules", () => {
    const model = sound();
    const constant = node("Constant", [], ["c"], { value: HostTensor.from([1, 2]) });
    constant.attribute![0]!.t!.dims = [3];
    model.graph!.node!.push(constant);
    expect(() => checkModel(model)).toThrow(
      'the attribute "value" of the Constant node that produces "c" takes 12 bytes (3 elements of f32), but 8 are there',
    );
  });
});

describe("external data", () => {
  const external = (entries: Record<string, string>): ModelProto => {
    const model = sound();
    const fields = Object.entries(entries).map(([key, value]) => ({ key, value }));
    Object.assign(weight(model), { rawData: undefined, dataLocation: 1, externalData: fields });
    return model;
  };

  it("may lie in folders below", () => {
    for (const location of ["w.bin", "data/w.bin", "./w.bin", "a..b"])
      expect(() => checkModel(external({ location, offset: "4096", length: "48" }))).not.toThrow();
  });

  it.each([
    [{}, "has external data without a location"],
    [{ location: "" }, "has external data without a location"],
    [{ location: "../w.bin" }, 'the location "../w.bin" of its external data leads out of the model\'s folder'],
    [{ location: "a/../../w.bin" }, "leads out of the model's folder"],
    [{ location: "a//b" }, "leads out of the model's folder"],
    [{ location: "/etc/passwd" }, "is an absolute path"],
    [{ location: "C:\\w.bin" }, "has a character that is not part of a plain relative path"],
    [{ location: "..\\w.bin" }, "has a character that is not part of a plain relative path"],
    [{ location: "a\0b" }, "has a character that is not part of a plain relative path"],
    [{ location: "*/_ORT_MEM_ADDR_/*" }, "is an address in another program's memory"],
    [{ location: "w", offset: "-1" }, 'the offset of its external data is "-1", not a whole number'],
    [{ location: "w", offset: "1e3" }, "not a whole number"],
    [{ location: "w", length: "99999999999999999999" }, "not a whole number"],
    [{ location: "w", length: "47" }, 'the initializer "w" takes 48 bytes, but its external data are declared as 47'],
  ])("%j is refused", (entries, reason) => {
    expect(() => checkModel(external(entries as Record<string, string>))).toThrow(OnnxError);
    expect(() => checkModel(external(entries as Record<string, string>))).toThrow(reason);
  });

  it("must say so, and say each thing once", () => {
    const model = external({ location: "w" });
    weight(model).externalData!.push({ key: "location", value: "v" });
    expect(() => checkModel(model)).toThrow("gives the location of its external data twice");
    delete weight(model).dataLocation;
    expect(() => checkModel(model)).toThrow("describes external data but does not say that it is external");
    weight(model).dataLocation = 1;
    weight(model).rawData = new Uint8Array(48);
    expect(() => checkModel(model)).toThrow("holds its data in 2 places");
  });
});
