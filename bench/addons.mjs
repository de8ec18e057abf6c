// node bench/addons.mjs OLD.node NEW.node [rounds [word …]]: what did a change of how the addon is built do to its
// speed? Compares two builds of it, whatever the JavaScript beside them is, so it is no question of `npm run bench`. A round
// starts a process for each, which measures all tasks, or those with one of the words in their names; who goes first takes
// turns. Prints Markdown: medians, and the median of the rounds' own ratios.
import { statSync } from "node:fs"
import path from "node:path"
import { inChild, machine } from "./harness.mjs"

const [older, newer, rounds = "9", ...words] = process.argv.slice(2)
if (!newer) throw new Error("node bench/addons.mjs OLD.node NEW.node [rounds [word …]]")

const sides = [older, newer].map((file) => ({ file: path.resolve(file), figures: [] }))
measureOnce(sides[1])
for (let round = 0; round < Number(rounds); round++) {
  const order = round % 2 === 0 ? sides : sides.toReversed()
  for (const side of order) side.figures.push(measureOnce(side))
}
print(sides)

function measureOnce({ file }) {
  process.env.SYNCLINE_ADDON_PATH = file
  return inChild("addons.child.mjs", ...words)
}

function print([old, now]) {
  const bytes = [old, now].map(({ file }) => statSync(file).size)
  console.log(
    `${machine()}, ${rounds} rounds; ${bytes[0]} and ${bytes[1]} bytes: ${(bytes[1] / bytes[0]).toFixed(2)}\n`,
  )
  console.log("| task | old | new | new / old | quartiles |\n| --- | --- | --- | --- | --- |")
  for (const task of Object.keys(old.figures[0])) {
    const figures = [old, now].map((side) => side.figures.map((figure) => figure[task]))
    const ratios = figures[1].map((figure, round) => figure / figures[0][round])
    const medians = figures.map((list) => `${quantile(list, 0.5).toPrecision(3)} µs`)
    const spread = `${quantile(ratios, 0.25).toFixed(2)} – ${quantile(ratios, 0.75).toFixed(2)}`
    console.log(`| ${task} | ${medians.join(" | ")} | ${quantile(ratios, 0.5).toFixed(2)} | ${spread} |`)
  }
}

function quantile(values, share) {
  const sorted = values.toSorted((a, b) => a - b)
  return sorted[Math.round((sorted.length - 1) * share)]
}
