import type { StandardJSONSchemaV1, StandardSchemaV1 } from "@standard-schema/spec"

/** The JSON Schema (draft 2020-12) of a definition's serialized events; `name` is `type.version`. */
export function payloadSchema(name: string, schema: StandardSchemaV1): Record<string, unknown> {
  return {
    $schema: "https://json-schema.org/draft/2020-12/schema",
    title: name,
    type: "object",
    properties: {
      id: { type: "string" },
      type: { const: name },
      seq: { type: "integer", minimum: 0, maximum: 2 ** 32 - 1 },
      aggregateID: { type: "string", minLength: 1 },
      data: dataSchema(name, schema),
      created: { type: "integer" },
      metadata: { type: "object" },
    },
    required: ["id", "type", "seq", "aggregateID", "data"],
  }
}

/** The `$id` makes the references within the data's schema relative to it, wherever it stands. */
function dataSchema(name: string, schema: StandardSchemaV1): Record<string, unknown> {
  const { jsonSchema } = schema["~standard"] as Partial<StandardJSONSchemaV1.Props>
  try {
    const described = jsonSchema?.input({ target: "draft-2020-12" })
    if (described !== undefined) return { ...described, $id: `urn:sync-event:${encodeURIComponent(name)}` }
  } catch {
    // Converters throw at what JSON Schema cannot express.
  }
  return { type: "object" }
}
