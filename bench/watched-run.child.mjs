// The process that `watched-run` starts: hears everything that is committed in the file, and says how much when asked.
import { open } from "./syncline.mjs"

const side = open(process.argv[2])
const heard = { events: 0, sum: 0 }
side.store.subscribeAll(
  (event) => {
    heard.events++
    heard.sum += event.data.updated
  },
  { scope: "database" },
)
process.on("message", () => process.send(heard.events))
process.on("disconnect", () => side.close())
process.send("ready")
