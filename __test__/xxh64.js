"use strict"

// XXH64 (https://github.com/Cyan4973/xxHash/blob/dev/doc/xxhash_spec.md), whose low half ends a zstd frame.

const MASK = 0xffffffffffffffffn
const P1 = 0x9e3779b185ebca87n
const P2 = 0xc2b2ae3d27d4eb4fn
const P3 = 0x165667b19e3779f9n
const P4 = 0x85ebca77c2b2ae63n
const P5 = 0x27d4eb2f165667c5n

const times = (a, b) => (a * b) & MASK
const rotated = (value, by) => ((value << BigInt(by)) | (value >> BigInt(64 - by))) & MASK
const round = (lane, input) => times(rotated((lane + times(input, P2)) & MASK, 31), P1)

/** The hash of some bytes, as a bigint. */
function xxh64(bytes) {
  let at = 0
  let hash
  if (bytes.length >= 32) {
    const lanes = [(P1 + P2) & MASK, P2, 0n, -P1 & MASK]
    for (; at + 32 <= bytes.length; at += 32) {
      for (let lane = 0; lane < 4; lane++) lanes[lane] = round(lanes[lane], bytes.readBigUInt64LE(at + lane * 8))
    }
    hash = [1, 7, 12, 18].reduce((sum, by, lane) => (sum + rotated(lanes[lane], by)) & MASK, 0n)
    for (const lane of lanes) hash = (times(hash ^ round(0n, lane), P1) + P4) & MASK
  } else {
    hash = P5
  }
  hash = (hash + BigInt(bytes.length)) & MASK
  for (; at + 8 <= bytes.length; at += 8) {
    hash = (times(rotated(hash ^ round(0n, bytes.readBigUInt64LE(at)), 27), P1) + P4) & MASK
  }
  if (at + 4 <= bytes.length) {
    hash = (times(rotated(hash ^ times(BigInt(bytes.readUInt32LE(at)), P1), 23), P2) + P3) & MASK
    at += 4
  }
  for (; at < bytes.length; at++) hash = times(rotated(hash ^ times(BigInt(bytes[at]), P5), 11), P1)
  hash = times(hash ^ (hash >> 33n), P2)
  hash = times(hash ^ (hash >> 29n), P3)
  return hash ^ (hash >> 32n)
}

module.exports = { xxh64 }
