// What does an event of 8 KiB cost a server with 1, 10 and 50 followers? And does one that does not read change anything for
// the others?
import { followed } from "./followed.mjs"
import { measure } from "./harness.mjs"

await measure({
  question: "sync-fanout",
  title:
    "an event of 8 KiB, from the commit until every follower has it; the server's processor time, and encoding's part",
  unit: "µs/event",
  rounds: 7,
  warmup: 1,
  sides: [
    followed("1 follower", 1),
    followed("10 followers", 10),
    followed("50 followers", 50),
    followed("50 followers, and one that does not read", 50, { stalled: 1 }),
  ],
  targets: [{ side: "50 followers, and one that does not read", against: "50 followers", atMost: 1.1 }],
})
