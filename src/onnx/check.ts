import { OnnxError } from "./errors.ts";
import { domainOf, operatorOf, opsetsOf } from "./opsets.ts";
import { describeNode } from "./order.ts";
import { attributeKind } from "./read-attributes.ts";
import { checkTensor, countElements, MAX_ELEMENTS, readDType } from "./read-tensor.ts";
import type { GraphProto, ModelProto, NodeProto, TensorProto, ValueInfoProto } from "./schema.ts";
import { signatureOf } from "./upgrade.ts";
import { decodeModel } from "./wire.ts";

/** The newest versions of the format itself and of its operators that are understood. */
const MAX_IR_VERSION = 13;
const MAX_OPSET = 26;

export interface CheckOptions {
  /** Most elements that a tensor may be declared with; default 2^32. */
  readonly maxElements?: number;
}

/** What holds for a graph and the graphs inside of its nodes. */
interface Scope {
  readonly irVersion: number;
  /** Operator set by domain. */
  readonly opsets: ReadonlyMap<string, number>;
  readonly limit: number;
  /** Values of the graphs around this one, where it lies inside of a node. */
  readonly outer?: ReadonlySet<string>;
}

/**
 * Checks the structure of a model as the format's specification demands it: versions and domains are declared, every
 * value has one producer, which comes before its readers, and types, dimensions and data agree.
 * @throws OnnxError at the first rule that is broken.
 */
export function checkModel(model: Uint8Array | ModelProto, { maxElements = MAX_ELEMENTS }: CheckOptions = {}): void {
  const proto = model instanceof Uint8Array ? decodeModel(model) : model;
  const { irVersion } = proto;
  if (irVersion === undefined) throw new OnnxError("the model does not say its IR version");
  if (!(irVersion >= 1 && irVersion <= MAX_IR_VERSION))
    throw new OnnxError(`the model has IR version ${irVersion}; 1 to ${MAX_IR_VERSION} are understood`);
  const opsets = opsetsOf(proto);
  const opset = opsets.get("") ?? 1;
  if (opset > MAX_OPSET) throw new OnnxError(`the model wants operator set ${opset}; 1 to ${MAX_OPSET} are understood`);
  if (proto.functions?.length)
    throw new OnnxError("the model defines functions of its own, which are not supported; export it with them inlined");
  const keys = new Set<string>();
  for (const { key = "" } of proto.metadataProps ?? []) {
    if (keys.has(key)) throw new OnnxError(`the metadata has the key "${key}" twice`);
    keys.add(key);
  }
  if (!proto.graph) throw new OnnxError("the model has no graph");
  checkGraph(proto.graph, { irVersion, opsets, limit: maxElements });
}

function checkGraph(graph: GraphProto, scope: Scope): void {
  if (!graph.name) throw new OnnxError("the graph has no name");
  if (graph.sparseInitializer?.length)
    throw new OnnxError("the graph has sparse initializers, which are not supported");
  const values = new Set(scope.outer);
  const add = (name: string | undefined, what: string): void => {
    if (!name) throw new OnnxError(`${what} has no name`);
    if (values.has(name)) throw new OnnxError(`two values are called "${name}"; ${what} is one of them`);
    values.add(name);
  };
  // The types of a subgraph's values may be left to inference.
  const typed = scope.outer === undefined;
  const inputs = new Map<string, ValueInfoProto>();
  for (const input of graph.input ?? []) {
    add(input.name, "an input");
    inputs.set(input.name!, input);
    checkValueInfo(input, `the input "${input.name}"`, scope, typed);
  }
  const initializers = new Set<string>();
  for (const tensor of graph.initializer ?? []) {
    const name = tensor.name ?? "";
    const what = `the initializer "${name}"`;
    if (initializers.has(name)) throw new OnnxError(`two initializers are called "${name}"`);
    initializers.add(name);
    const input = inputs.get(name);
    if (!input) {
      add(tensor.name, "an initializer");
      if (scope.irVersion < 4)
        throw new OnnxError(`${what} is not among the inputs, as IR version ${scope.irVersion} wants it`);
    }
    checkTensor(tensor, { what, limit: scope.limit });
    if (input && !agrees(tensor, input)) throw new OnnxError(`${what} differs in type from the input of that name`);
  }
  for (const node of graph.node ?? []) {
    checkNode(node, scope, values);
    for (const name of node.output ?? []) if (name !== "") add(name, describeNode(node));
  }
  const outputs = new Set<string>();
  for (const output of graph.output ?? []) {
    const { name = "" } = output;
    if (!values.has(name)) throw new OnnxError(`nothing produces the output "${name}"`);
    if (outputs.has(name)) throw new OnnxError(`two outputs are called "${name}"`);
    outputs.add(name);
    checkValueInfo(output, `the output "${name}"`, scope, typed);
  }
  for (const value of graph.valueInfo ?? []) {
    if (!value.name) throw new OnnxError("a value description has no name");
    checkValueInfo(value, `the value "${value.name}"`, scope, false);
  }
}

function checkNode(node: NodeProto, scope: Scope, values: ReadonlySet<string>): void {
  if (!/^\w+$/.test(node.opType ?? ""))
    throw new OnnxError(
      `the node "${node.name ?? ""}" has the operator type "${node.opType ?? ""}", which is not a name`,
    );
  const where = describeNode(node);
  if (!node.input?.length && !node.output?.length) throw new OnnxError(`${where} has neither inputs nor outputs`);
  const domain = domainOf(node);
  const version = scope.opsets.get(domain);
  if (version === undefined)
    throw new OnnxError(`${where} is of the domain "${domain}", whose operator set the model does not declare`);
  for (const name of node.input ?? []) {
    if (name !== "" && !values.has(name))
      throw new OnnxError(`${where} reads "${name}" before anything has produced it`);
  }
  const signature = signatureOf(operatorOf(node), version);
  const seen = new Set<string>();
  for (const attribute of node.attribute ?? []) {
    const { name } = attribute;
    if (!name) throw new OnnxError(`${where} has an attribute without a name`);
    if (seen.has(name)) throw new OnnxError(`${where} has two attributes "${name}"`);
    seen.add(name);
    const what = `the attribute "${name}" of ${where}`;
    const kind = attributeKind(attribute, what);
    if (attribute.t) checkTensor(attribute.t, { what, limit: scope.limit });
    if (attribute.g) checkGraph(attribute.g, { ...scope, outer: values });
    if (!signature) continue;
    const wanted = Object.hasOwn(signature.attrs, name) ? signature.attrs[name] : undefined;
    if (!wanted) throw new OnnxError(`${what} is unknown to the operator`);
    if (kind !== wanted) throw new OnnxError(`${what} must be of kind ${wanted}, not ${kind}`);
  }
  if (!signature) return;
  const [least, most] = signature.arity;
  const count = node.input?.length ?? 0;
  const missing = node.input?.slice(0, least).indexOf("") ?? -1;
  if (missing >= 0) throw new OnnxError(`${where} leaves out its input ${missing}, which the operator needs`);
  if (count < least || count > most)
    throw new OnnxError(`${where} has ${count} inputs, which the operator does not take`);
}

function checkValueInfo({ type }: ValueInfoProto, what: string, { limit }: Scope, required: boolean): void {
  const other = (["sequenceType", "mapType", "sparseTensorType", "optionalType"] as const).find((kind) => type?.[kind]);
  if (other)
    throw new OnnxError(
      `${what} is a ${other.replace("Type", "").replace("sparseTensor", "sparse tensor")}; only tensors are supported`,
    );
  if (!type?.tensorType) {
    if (required) throw new OnnxError(`${what} has no type`);
    return;
  }
  const { elemType, shape } = type.tensorType;
  if (required || elemType) readDType(elemType, what);
  const dims = (shape?.dim ?? []).map(({ dimValue, dimParam }) => {
    if (dimValue !== undefined && dimParam !== undefined)
      throw new OnnxError(`${what} has a dimension that is both ${dimValue} and "${dimParam}"`);
    return dimValue ?? 1;
  });
  countElements(dims, limit, what);
}

/** Whether an initializer is of the type that the input of its name declares. */
function agrees({ dataType, dims = [] }: TensorProto, { type }: ValueInfoProto): boolean {
  const { elemType, shape } = type?.tensorType ?? {};
  if (elemType && elemType !== dataType) return false;
  const declared = shape?.dim;
  return (
    !declared ||
    (declared.length === dims.length &&
      declared.every(({ dimValue }, i) => dimValue === undefined || dimValue === dims[i]))
  );
}
