// Reads a WAL's own header: how many frames the current WAL holds, and how often checkpoints have let it start anew.
import fs from "node:fs"

/**
 * `{frames, resets}` of a WAL file. Frames of an earlier round that a restarted WAL has not overwritten yet carry other
 * salts and do not count. `resets` is the header's checkpoint sequence number.
 */
export function readWal(file) {
  const bytes = fs.existsSync(file) ? fs.readFileSync(file) : Buffer.alloc(0)
  if (bytes.length < headerBytes) return { frames: 0, resets: undefined }
  const pageSize = bytes.readUInt32BE(8)
  const salts = bytes.subarray(16, 24)
  let frames = 0
  let offset = headerBytes
  while (offset + frameHeaderBytes + pageSize <= bytes.length) {
    if (!bytes.subarray(offset + 8, offset + 16).equals(salts)) break
    frames++
    offset += frameHeaderBytes + pageSize
  }
  return { frames, resets: bytes.readUInt32BE(12) }
}

const headerBytes = 32
const frameHeaderBytes = 24
