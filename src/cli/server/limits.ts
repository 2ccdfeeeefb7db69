/** What a client may ask of the server, so that none of them can keep it from the others. Times in milliseconds. */
export interface Limits {
  /** Of a request's body. */
  readonly bodyBytes: number;
  /** Requests that wait while one is being answered. */
  readonly waiting: number;
  readonly connections: number;
  /** Until all headers of a request are in. */
  readonly headersTime: number;
  /** Until all of a request is in. */
  readonly requestTime: number;
  /** How long a client may leave what it was sent unread. */
  readonly stallTime: number;
  /** Of a stream that its client has not read yet; beyond it generation waits, for `stallTime` at most. */
  readonly backlogBytes: number;
  /** For answers that are under way when the server is told to end. */
  readonly graceTime: number;
}

/** @param positions tokens that the model takes */
export function usualLimits(positions: number): Limits {
  return {
    // Text, even with each character escaped, that fills the context several times.
    bodyBytes: Math.max(2 ** 20, 32 * positions),
    waiting: 64,
    connections: 256,
    headersTime: 10_000,
    requestTime: 30_000,
    stallTime: 10_000,
    backlogBytes: 2 ** 20,
    graceTime: 10_000,
  };
}
