"use strict"

// Holds requests and answers to the OpenAPI document of the routes.

const assert = require("node:assert/strict")
const Ajv = require("ajv/dist/2020")
const { open } = require("syncline")
const { syncRoutes } = require("syncline/http")

let known

/** The document, as the routes serve it, and what checks values against its schemas. */
async function description() {
  if (known !== undefined) return known
  const store = open(":memory:")
  const answer = await syncRoutes(store, { authorize: "none" }).request("/sync/openapi.json")
  const document = await answer.json()
  store.close()
  // Of the document only its schemas are JSON Schema.
  const ajv = new Ajv({ strict: false, validateSchema: false, allErrors: true })
  ajv.addSchema(document, "document")
  const validators = new Map()
  /** Asserts that a value is what a schema of the document says, named by the path to it. */
  const check = (path, value) => {
    let validate = validators.get(path)
    if (validate === undefined) validators.set(path, (validate = ajv.compile({ $ref: `document#${path}` })))
    assert.ok(validate(value), `${path}: ${ajv.errorsText(validate.errors)} in ${JSON.stringify(value).slice(0, 500)}`)
  }
  known = { document, check }
  return known
}

const escaped = (name) => encodeURIComponent(name.replaceAll("~", "~0").replaceAll("/", "~1"))

const prefixOf = (asked, path) => (asked.endsWith(path) ? asked.slice(0, -path.length) : undefined)

/**
 * Asserts that an answer is one that the document knows for this request: its status, the type of its content and, of JSON,
 * the content; and that what was accepted is what the document says can be sent. Paths may have a prefix.
 */
async function assertDescribed(method, url, sent, { status, type, json }) {
  const { document, check } = await description()
  const asked = url.split("?")[0]
  const path = Object.keys(document.paths).find((path) => /^$|[^/]$/.test(prefixOf(asked, path) ?? "/"))
  const operation = document.paths[path]?.[method.toLowerCase()]
  if (json !== undefined && status >= 400) check(`/components/schemas/Error${status}`, json)
  if (operation === undefined || method === "HEAD") return
  let response = operation.responses[status]
  assert.ok(response !== undefined, `${method} ${path} is not said to answer ${status}`)
  if (response.$ref !== undefined) response = document.components.responses[status]
  assert.ok(type in response.content, `${method} ${path} answers ${status} with ${type}`)
  if (status !== 200) return
  const at = `/paths/${escaped(path)}/${method.toLowerCase()}`
  if (json !== undefined) check(`${at}/responses/200/content/${escaped("application/json")}/schema`, json)
  if (sent !== undefined) check(`${at}/requestBody/content/${escaped("application/json")}/schema`, sent)
}

module.exports = { assertDescribed, description }
