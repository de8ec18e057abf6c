"use strict"

// By code: a request that is answered with it, for the suite of errors. What the answer says is thrown as a client throws it.

const { SyncError } = require("syncline")
const { syncRoutes } = require("syncline/http")

/** Pairs as in the suite: the fields that the error must have, and what throws it. `open` makes a store. */
function answered(open) {
  const asked = async (options, path, init) => {
    const request = { method: "POST", ...init }
    const answer = await syncRoutes(open(), { onError: () => {}, ...options }).request(path, request)
    const { code, message, ...fields } = await answer.json()
    throw new SyncError(code, message, { ...fields, status: answer.status })
  }
  const everybody = { authorize: "none" }
  const fails = () => {
    throw new Error("what nobody else should read")
  }
  return {
    ERR_UNAUTHORIZED: [
      { status: 401, message: /Authorization: Bearer/ },
      () => asked({ authorize: { token: "secret" } }, "/sync/history", { headers: { authorization: "Bearer guess" } }),
    ],
    ERR_FORBIDDEN: [
      { status: 403, message: /may not write/ },
      () => asked({ authorize: (_, what) => what === "read" || "forbidden" }, "/sync/replay"),
    ],
    ERR_NOT_FOUND: [{ status: 404, message: /"\/sync\/histories"/ }, () => asked(everybody, "/sync/histories")],
    ERR_METHOD_NOT_ALLOWED: [
      { status: 405, expected: "POST", got: "PUT", message: /takes POST, not "PUT"/ },
      () => asked(everybody, "/sync/history", { method: "PUT" }),
    ],
    ERR_UNSUPPORTED_MEDIA_TYPE: [
      { status: 415, expected: "application/json", got: "text/plain", message: /Content-Type must be/ },
      () => asked(everybody, "/sync/history", { body: "{}", headers: { "content-type": "text/plain" } }),
    ],
    ERR_INTERNAL: [{ status: 500, message: /its own log/ }, () => asked({ authorize: fails }, "/sync/history")],
  }
}

module.exports = { answered }
