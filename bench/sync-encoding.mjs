// Is an event encoded once, however many follow? What encoding takes of a server's time with 1 and with 50 followers.
import { followed } from "./followed.mjs"
import { measure } from "./harness.mjs"

await measure({
  question: "sync-encoding",
  title: "an event of 8 KiB: the part of the server's time that encodes it, by its profile",
  unit: "µs/event",
  rounds: 7,
  warmup: 1,
  sides: [followed("1 follower", 1, { figure: "encoding" }), followed("50 followers", 50, { figure: "encoding" })],
  targets: [{ side: "50 followers", against: "1 follower", atMost: 2 }],
})
