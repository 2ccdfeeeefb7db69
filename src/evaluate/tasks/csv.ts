import { TaskError } from "../errors.ts";

/** The records of comma-separated values (RFC 4180): quoted fields may hold commas, line breaks and doubled quotes. */
export function parseCsv(text: string, where: string): string[][] {
  const records: string[][] = [];
  let record: string[] = [];
  for (let at = 0; at < text.length; ) {
    const quoted = text[at] === '"';
    const field = quoted ? /"((?:[^"]|"")*)"/y : /[^,\r\n]*/y;
    field.lastIndex = at;
    const found = field.exec(text);
    if (!found) throw new TaskError(`${where}: the quote in record ${records.length + 1} is never closed`);
    record.push(quoted ? found[1]!.replaceAll('""', '"') : found[0]);
    at = field.lastIndex;
    if (text[at] === ",") {
      at++;
      if (at === text.length) record.push("");
      else continue;
    }
    const end = /\r?\n|\r|$/y;
    end.lastIndex = at;
    if (!end.test(text)) throw new TaskError(`${where}: text follows a closing quote in record ${records.length + 1}`);
    at = Math.max(end.lastIndex, at);
    records.push(record);
    record = [];
  }
  return records;
}
