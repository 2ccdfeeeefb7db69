import { PareError } from "../tensor/errors.ts";

/** A file whose bytes break its format's rules. Nothing of it has been handed out when this is thrown. */
export class FormatError extends PareError {
  override readonly code: string = "FORMAT";
}

/** A file that asks for more than a limit allows. Limits are arguments: whoever trusts the file can raise them. */
export class LimitError extends FormatError {
  override readonly code: string = "LIMIT";
}

/** A file that the system will not open, read or write: missing, forbidden, disk full. */
export class FileError extends PareError {
  override readonly code = "FILE";
}
