import { isJsonObject, type JsonObject } from "../../formats/json.ts";
import { TaskError } from "../errors.ts";

/** A row of a dataset. */
export type Row = JsonObject;

/**
 * A template with each `{{field}}` replaced by that field of a row; `{{choices.text.0}}` looks into objects and lists.
 * What is put in is not looked at again. Text goes in as it is, anything else as JSON.
 * @throws TaskError naming the field that the row lacks, and those that it has
 */
export function render(template: string, row: Row): string {
  return template.replace(/\{\{\s*([^{}]*?)\s*\}\}/g, (_, path: string) => {
    const value = lookUp(path, row);
    return typeof value === "string" ? value : JSON.stringify(value);
  });
}

/** The value of a field, given by its path. @throws TaskError where there is none */
export function lookUp(path: string, row: Row): unknown {
  let value: unknown = row;
  for (const name of path.split(".")) {
    const has = Array.isArray(value) ? /^\d+$/.test(name) : isJsonObject(value) && Object.hasOwn(value, name);
    const found = has ? (value as Record<string, unknown>)[name] : undefined;
    if (found === undefined)
      throw new TaskError(
        `a template asks for {{${path}}}, but the row has only ${Object.keys(row).join(", ") || "no field"}`,
      );
    value = found;
  }
  return value;
}
