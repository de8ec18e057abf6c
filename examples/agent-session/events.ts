import { define } from "syncline"
import { z } from "zod"

// What is not named here is still stored and sent: a log keeps the text that it was given. Messages and parts are loose
// objects because their projectors keep every field, also those that a later version of the program adds.

export const SessionInfo = z.object({
  id: z.string(),
  projectID: z.string(),
  parentID: z.string().optional(),
  slug: z.string(),
  title: z.string(),
  version: z.string(),
  agent: z.string().optional(),
  directory: z.string(),
  model: z.record(z.string(), z.unknown()).optional(),
  revert: z.record(z.string(), z.unknown()).optional(),
  time: z.object({ created: z.number(), updated: z.number(), archived: z.number().optional() }),
})

export const MessageInfo = z.looseObject({
  id: z.string(),
  sessionID: z.string(),
  role: z.enum(["user", "assistant"]),
  time: z.looseObject({ created: z.number() }),
})

export const Part = z.looseObject({
  id: z.string(),
  sessionID: z.string(),
  messageID: z.string(),
  type: z.string(),
})

export type SessionInfo = z.infer<typeof SessionInfo>
export type MessageInfo = z.infer<typeof MessageInfo>
export type Part = z.infer<typeof Part>

export const SessionCreated = define({
  type: "session.created",
  version: 1,
  aggregate: "sessionID",
  schema: z.object({ sessionID: z.string(), info: SessionInfo }),
})

export const SessionUpdated = define({
  type: "session.updated",
  version: 1,
  aggregate: "sessionID",
  schema: z.object({ sessionID: z.string(), info: SessionInfo }),
})

export const MessageUpdated = define({
  type: "message.updated",
  version: 1,
  aggregate: "sessionID",
  schema: z.object({ sessionID: z.string(), info: MessageInfo }),
})

export const MessageRemoved = define({
  type: "message.removed",
  version: 1,
  aggregate: "sessionID",
  schema: z.object({ sessionID: z.string(), messageID: z.string() }),
})

export const PartUpdated = define({
  type: "message.part.updated",
  version: 1,
  aggregate: "sessionID",
  schema: z.object({ sessionID: z.string(), part: Part, time: z.number() }),
})

export const PartRemoved = define({
  type: "message.part.removed",
  version: 1,
  aggregate: "sessionID",
  schema: z.object({ sessionID: z.string(), messageID: z.string(), partID: z.string() }),
})
