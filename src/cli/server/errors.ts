import { PareError } from "../../tensor/errors.ts";

interface Details {
  /** The parameter that is at fault. */
  readonly param?: string;
  /** What programs tell kinds of errors apart by. */
  readonly reason?: string;
  readonly headers?: Readonly<Record<string, string>>;
}

/** A request that is answered with an error, in the shape that OpenAI's clients understand. */
export class ApiError extends PareError {
  override readonly code = "API";
  /** HTTP status. */
  readonly status: number;
  readonly details: Details;

  constructor(status: number, message: string, details: Details = {}) {
    super(message);
    this.status = status;
    this.details = details;
  }

  /** The body of the answer. */
  get body(): unknown {
    const { param = null, reason = null } = this.details;
    return { error: { message: this.message, type: typeOf(this.status), param, code: reason } };
  }
}

function typeOf(status: number): string {
  if (status >= 500) return "server_error";
  return status === 429 ? "rate_limit_error" : "invalid_request_error";
}

/** A parameter that cannot be what it is. */
export function refused(param: string, message: string): ApiError {
  return new ApiError(400, message, { param, reason: "invalid_value" });
}
