import type { IncomingMessage } from "node:http";
import { FormatError } from "../../formats/errors.ts";
import { decodeUtf8, isJsonObject, type JsonObject, parseJson } from "../../formats/json.ts";
import { ApiError } from "./errors.ts";

/**
 * The JSON object that a request brings.
 * @throws ApiError for another type of content (415), more bytes than `limit` (413), anything but a JSON object (400)
 */
export async function readBody(request: IncomingMessage, limit: number): Promise<JsonObject> {
  const { "content-type": type = "", "content-encoding": encoding = "identity" } = request.headers;
  // Asking for this type also keeps web pages out: they may send it only where CORS allows them to.
  if (!/^application\/json\s*(;\s*charset="?utf-8"?\s*)?$/i.test(type))
    throw new ApiError(415, `the content must be application/json in UTF-8, not ${JSON.stringify(type)}`);
  if (encoding !== "identity") throw new ApiError(415, `the content must not be encoded, but it is ${encoding}`);
  const bytes = await readBytes(request, limit);
  try {
    const value = parseJson(decodeUtf8(bytes, "the request"), "the request");
    if (isJsonObject(value)) return value;
  } catch (error) {
    if (error instanceof FormatError) throw new ApiError(400, error.message);
    throw error;
  }
  throw new ApiError(400, "the request holds no JSON object");
}

async function readBytes(request: IncomingMessage, limit: number): Promise<Buffer> {
  const tooLarge = (): ApiError => new ApiError(413, `the request has more than ${limit} bytes`);
  if (Number(request.headers["content-length"] ?? 0) > limit) throw tooLarge();
  const chunks: Buffer[] = [];
  let size = 0;
  // Leaving early must not close the connection: the client is told why first.
  for await (const chunk of request.iterator({ destroyOnReturn: false }) as AsyncIterable<Buffer>) {
    size += chunk.length;
    if (size > limit) throw tooLarge();
    chunks.push(chunk);
  }
  return Buffer.concat(chunks);
}
