// The clients of `syncline/http`, as a caller's compiler sees them.
import { open, type SyncError } from "syncline"
import { follow, push, transfer, type FollowStatus } from "syncline/http"
import type { Equal, Expect } from "./equal"

const store = open(":memory:")

async function clients() {
  await follow(store, { url: "https://example.org" })
  await follow(store, {
    url: new URL("https://example.org"),
    aggregates: new Set(["a"]),
    unknown: "record",
    onStatus: (status, { error, attempt, delay }) => void [status satisfies FollowStatus, error, attempt, delay],
    onError: (_error, { aggregateID }) => void (aggregateID satisfies string | undefined),
  })
  // @ts-expect-error a server has an address
  await follow(store, {})
  // @ts-expect-error one aggregate is a list of one
  await follow(store, { url: "https://example.org", aggregates: "a" })

  const { refused, applied } = await push(store, { url: "https://example.org", aggregates: ["a"] })
  type Counted = Expect<Equal<typeof applied, number>>
  type Refused = Expect<Equal<typeof refused, { aggregateID: string; error: SyncError }[]>>

  const { owner, epoch, seq } = await transfer(store, { url: "https://example.org", aggregateID: "a", owner: "me" })
  type Taken = Expect<Equal<[typeof owner, typeof epoch, typeof seq], [string, number, number]>>
  // @ts-expect-error it is taken by somebody
  await transfer(store, { url: "https://example.org", aggregateID: "a" })
  return [] as (Counted | Refused | Taken)[]
}
void clients
