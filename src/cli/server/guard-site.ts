import { type Guard, VerdictParseError } from "../../methods/index.ts";
import { conversationOf } from "../../methods/node.ts";
import { ArgumentError } from "../../tensor/errors.ts";
import { readBody } from "./body.ts";
import { ApiError } from "./errors.ts";
import { Parameters } from "./parameters.ts";
import { type Exchange, type Site, sendJson } from "./routes.ts";

/** A guard that judges conversations, one at a time. It stays the caller's to dispose. */
export function guardSite(guard: Guard): Site {
  return {
    positions: guard.positions,
    find(path) {
      if (path === "/moderate") return { method: "POST", handle: (exchange) => moderated(guard, exchange) };
      if (path !== "/policy") return undefined;
      return { method: "GET", handle: ({ response }) => sendJson(response, 200, guard.policy) };
    },
  };
}

/** What a model says that is no verdict is the server's failure, and never passes for "safe". */
async function moderated(guard: Guard, { service, request, response, signal }: Exchange): Promise<void> {
  const { limits, queue } = service;
  const body = await readBody(request, limits.bodyBytes);
  const parameters = new Parameters(body);
  for (const name of ["turns", "judge"]) parameters.any(name);
  parameters.end();
  try {
    const { turns, judge } = conversationOf(body, "the request");
    using _turn = await queue.enter(signal);
    sendJson(response, 200, await guard.moderate(turns, judge));
  } catch (error) {
    if (error instanceof ArgumentError) throw new ApiError(400, error.message, { reason: "invalid_value" });
    if (error instanceof VerdictParseError) throw new ApiError(500, error.message, { reason: "no_verdict" });
    throw error;
  }
}
