/**
 * The messages of the ONNX format that pare reads and writes: field names, numbers and kinds as published in
 * onnx.proto (IR version 10). Fields that are not listed are skipped on reading; `Opaque` ones are noted, not read.
 * Integers of 64 bits become numbers where they count something (`int64`, `int64s`) and stay exact where they are
 * tensors' elements (`bigints`, `ubigints`).
 */
export type FieldKind =
  | "int64"
  | "int32"
  | "float"
  | "string"
  | "bytes"
  | "floats"
  | "doubles"
  | "int32s"
  | "int64s"
  | "bigints"
  | "ubigints"
  | MessageName;

export interface Field {
  readonly name: string;
  readonly kind: FieldKind;
  readonly repeated: boolean;
}

export type MessageName =
  | "Model"
  | "OperatorSetId"
  | "StringStringEntry"
  | "Graph"
  | "Node"
  | "Attribute"
  | "Tensor"
  | "ValueInfo"
  | "Type"
  | "TensorType"
  | "TensorShape"
  | "Dimension"
  | "Opaque";

const one = (name: string, kind: FieldKind): Field => ({ name, kind, repeated: false });
const many = (name: string, kind: FieldKind): Field => ({ name, kind, repeated: true });

export const schema: Readonly<Record<MessageName, Readonly<Record<number, Field>>>> = {
  Model: {
    1: one("irVersion", "int64"),
    2: one("producerName", "string"),
    3: one("producerVersion", "string"),
    7: one("graph", "Graph"),
    8: many("opsetImport", "OperatorSetId"),
    14: many("metadataProps", "StringStringEntry"),
    25: many("functions", "Opaque"),
  },
  OperatorSetId: { 1: one("domain", "string"), 2: one("version", "int64") },
  StringStringEntry: { 1: one("key", "string"), 2: one("value", "string") },
  Graph: {
    1: many("node", "Node"),
    2: one("name", "string"),
    5: many("initializer", "Tensor"),
    11: many("input", "ValueInfo"),
    12: many("output", "ValueInfo"),
    13: many("valueInfo", "ValueInfo"),
    15: many("sparseInitializer", "Opaque"),
  },
  Node: {
    1: many("input", "string"),
    2: many("output", "string"),
    3: one("name", "string"),
    4: one("opType", "string"),
    5: many("attribute", "Attribute"),
    7: one("domain", "string"),
  },
  Attribute: {
    1: one("name", "string"),
    2: one("f", "float"),
    3: one("i", "int64"),
    4: one("s", "bytes"),
    5: one("t", "Tensor"),
    6: one("g", "Graph"),
    7: one("floats", "floats"),
    8: one("ints", "int64s"),
    9: many("strings", "bytes"),
    10: many("tensors", "Opaque"),
    11: many("graphs", "Opaque"),
    14: one("typeProto", "Opaque"),
    15: many("typeProtos", "Opaque"),
    22: one("sparseTensor", "Opaque"),
    23: many("sparseTensors", "Opaque"),
    20: one("type", "int32"),
    21: one("refAttrName", "string"),
  },
  Tensor: {
    1: one("dims", "int64s"),
    2: one("dataType", "int32"),
    3: one("segment", "Opaque"),
    4: one("floatData", "floats"),
    5: one("int32Data", "int32s"),
    6: many("stringData", "bytes"),
    7: one("int64Data", "bigints"),
    8: one("name", "string"),
    9: one("rawData", "bytes"),
    10: one("doubleData", "doubles"),
    11: one("uint64Data", "ubigints"),
    13: many("externalData", "StringStringEntry"),
    14: one("dataLocation", "int32"),
  },
  ValueInfo: { 1: one("name", "string"), 2: one("type", "Type") },
  Type: {
    1: one("tensorType", "TensorType"),
    4: one("sequenceType", "Opaque"),
    5: one("mapType", "Opaque"),
    8: one("sparseTensorType", "Opaque"),
    9: one("optionalType", "Opaque"),
  },
  TensorType: { 1: one("elemType", "int32"), 2: one("shape", "TensorShape") },
  TensorShape: { 1: many("dim", "Dimension") },
  Dimension: { 1: one("dimValue", "int64"), 2: one("dimParam", "string") },
  Opaque: {},
};

// What the messages look like in TypeScript. Every field is optional, as in the format itself.

export interface ModelProto {
  irVersion?: number;
  producerName?: string;
  producerVersion?: string;
  graph?: GraphProto;
  opsetImport?: OperatorSetIdProto[];
  metadataProps?: StringStringEntryProto[];
  functions?: object[];
}
export interface OperatorSetIdProto {
  domain?: string;
  version?: number;
}
export interface StringStringEntryProto {
  key?: string;
  value?: string;
}
export interface GraphProto {
  node?: NodeProto[];
  name?: string;
  initializer?: TensorProto[];
  input?: ValueInfoProto[];
  output?: ValueInfoProto[];
  valueInfo?: ValueInfoProto[];
  sparseInitializer?: object[];
}
export interface NodeProto {
  input?: string[];
  output?: string[];
  name?: string;
  opType?: string;
  attribute?: AttributeProto[];
  domain?: string;
}
export interface AttributeProto {
  name?: string;
  f?: number;
  i?: number;
  s?: Uint8Array;
  t?: TensorProto;
  g?: GraphProto;
  floats?: number[];
  ints?: number[];
  strings?: Uint8Array[];
  tensors?: object[];
  graphs?: object[];
  typeProto?: object;
  typeProtos?: object[];
  sparseTensor?: object;
  sparseTensors?: object[];
  type?: number;
  refAttrName?: string;
}
export interface TensorProto {
  dims?: number[];
  dataType?: number;
  segment?: object;
  floatData?: number[];
  int32Data?: number[];
  stringData?: Uint8Array[];
  int64Data?: bigint[];
  name?: string;
  rawData?: Uint8Array;
  doubleData?: number[];
  uint64Data?: bigint[];
  externalData?: StringStringEntryProto[];
  /** 1: the bytes lie in another file, described by `externalData`. */
  dataLocation?: number;
}
export interface ValueInfoProto {
  name?: string;
  type?: TypeProto;
}
export interface TypeProto {
  tensorType?: TensorTypeProto;
  sequenceType?: object;
  mapType?: object;
  sparseTensorType?: object;
  optionalType?: object;
}
export interface TensorTypeProto {
  elemType?: number;
  shape?: TensorShapeProto;
}
export interface TensorShapeProto {
  dim?: DimensionProto[];
}
export interface DimensionProto {
  dimValue?: number;
  dimParam?: string;
}

/** `AttributeProto.AttributeType` numbers. */
export const attributeType = {
  float: 1,
  int: 2,
  string: 3,
  tensor: 4,
  graph: 5,
  floats: 6,
  ints: 7,
  strings: 8,
  tensors: 9,
  graphs: 10,
  sparseTensor: 11,
  sparseTensors: 12,
  typeProto: 13,
  typeProtos: 14,
} as const;
