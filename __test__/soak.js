"use strict"

// The tests that are worth more the longer they run: `npm test` runs a short form of each, `npm run soak` the long one, and
// both print the figures. What is random follows from a seed; SYNCLINE_SEED=n runs that one again.

const { randomInt } = require("node:crypto")
const { uniformInt } = require("pure-rand/distribution/uniformInt")
const { xoroshiro128plus } = require("pure-rand/generator/xoroshiro128plus")

/** Whether this is the long form. */
const soak = process.env.SYNCLINE_SOAK === "1"

/** The extent of a test: `short` in `npm test`, `long` in `npm run soak`. */
const extent = (short, long) => (soak ? long : short)

/** So many seeds, other ones each time; or the one that SYNCLINE_SEED names. */
function seeds(short, long) {
  if (process.env.SYNCLINE_SEED !== undefined) return [Number(process.env.SYNCLINE_SEED)]
  const first = randomInt(2 ** 31 - 1)
  return Array.from({ length: extent(short, long) }, (_, n) => (first + n) % (2 ** 31 - 1))
}

/** Numbers that follow from a seed: `integer(bound)` from 0 below `bound`, `one(of)` these, `chance(probability)`. */
function random(seed) {
  const generator = xoroshiro128plus(mixed(seed))
  const integer = (bound) => uniformInt(generator, 0, bound - 1)
  return {
    integer,
    one: (of) => of[integer(of.length)],
    chance: (probability) => integer(2 ** 30) < probability * 2 ** 30,
  }
}

/** Neighbouring seeds would begin with nearly the same numbers: every bit of a seed moves half of the bits of this (murmur3). */
function mixed(seed) {
  let bits = Math.imul(seed ^ (seed >>> 16), 0x85ebca6b)
  bits = Math.imul(bits ^ (bits >>> 13), 0xc2b2ae35)
  return bits ^ (bits >>> 16)
}

/** Prints what was measured, in a line that the scripts pass on: `figures contention: median 3 ms, max 80 ms`. */
function figures(name, values) {
  const all = Object.entries(values).map(([what, value]) => `${what} ${value}`)
  console.log(`figures ${name}: ${all.join(", ")}`)
}

module.exports = { extent, figures, random, seeds, soak }
