import { closeSync, fstatSync, openSync, readSync } from "node:fs"

/** What the head of a file with machine code says of it. */
export interface Binary {
  /** As `process.platform` has it, where that is known; every ELF file counts as Linux's. */
  readonly platform?: "linux" | "darwin" | "win32"
  /** As `process.arch` has them; empty where that is not known. A file for macOS may be for several. */
  readonly architectures: readonly string[]
  /** The file is not known to be shorter than its head says. */
  readonly whole: boolean
}

/** How much is read. The head of an addon is a few hundred bytes; macOS's lists its segments there, too. */
const HEAD = 16_384

/**
 * Looks at a file before the system loads it, since loading a file that was cut short can end the process with SIGBUS.
 * Undefined: there is no machine code in it. Throws what `open` throws.
 */
export function readBinary(path: string): Binary | undefined {
  const file = openSync(path, "r")
  const { size } = fstatSync(file)
  try {
    const head = Buffer.alloc(Math.min(size, HEAD))
    readSync(file, head, 0, head.length, 0)
    return elf(head, size) ?? machO(head, size) ?? universal(head, size) ?? portableExecutable(head, size)
  } catch (error) {
    // The head names a place behind what was read: behind the file's end, or where a tool has moved its tables to.
    if (error instanceof RangeError) return { architectures: [], whole: size > HEAD }
    throw error
  } finally {
    closeSync(file)
  }
}

const ELF_MACHINES: Record<number, string> = { 3: "ia32", 40: "arm", 62: "x64", 183: "arm64", 243: "riscv64" }

function elf(head: Buffer, size: number): Binary | undefined {
  if (head.length < 64 || head.readUInt32BE(0) !== 0x7f454c46) return undefined
  // The other order of bytes is no processor's of ours: the system can tell whether it is this machine's.
  if (head[5] !== 1) return { platform: "linux", architectures: [], whole: true }
  const known = ELF_MACHINES[head.readUInt16LE(18)]
  const wide = head[4] === 2
  const ends = [0]
  // A machine of 32 bits has another layout, and is none of ours.
  if (wide) {
    // The table of sections is written last; the segments are what is mapped.
    ends.push(offset(head, 40) + head.readUInt16LE(58) * head.readUInt16LE(60))
    const segments = offset(head, 32)
    for (let index = 0; index < head.readUInt16LE(56); index++) {
      const at = segments + index * head.readUInt16LE(54)
      ends.push(offset(head, at + 8) + offset(head, at + 32))
    }
  }
  const fits = known !== undefined && wide === /64/.test(known)
  return { platform: "linux", architectures: fits ? [known] : [], whole: Math.max(...ends) <= size }
}

const MACH_MACHINES: Record<number, string> = { 0x01000007: "x64", 0x0100000c: "arm64" }
const LC_SEGMENT_64 = 0x19

function machO(head: Buffer, size: number): Binary | undefined {
  if (head.length < 32 || head.readUInt32LE(0) !== 0xfeedfacf) return undefined
  const known = MACH_MACHINES[head.readUInt32LE(4)]
  const ends = [0]
  let at = 32
  for (let index = 0; index < head.readUInt32LE(16); index++) {
    if (head.readUInt32LE(at) === LC_SEGMENT_64) ends.push(offset(head, at + 40) + offset(head, at + 48))
    const length = head.readUInt32LE(at + 4)
    if (length < 8) return undefined
    at += length
  }
  return { platform: "darwin", architectures: known === undefined ? [] : [known], whole: Math.max(...ends) <= size }
}

/** Several of macOS's in one file. */
function universal(head: Buffer, size: number): Binary | undefined {
  if (head.length < 8) return undefined
  // With sizes of 64 bits, which nobody is known to make.
  if (head.readUInt32BE(0) === 0xcafebabf) return { platform: "darwin", architectures: [], whole: true }
  if (head.readUInt32BE(0) !== 0xcafebabe) return undefined
  const count = head.readUInt32BE(4)
  // Java's classes begin alike, with their version in this place, which is higher.
  if (count > 16) return undefined
  const parts = Array.from({ length: count }, (_, index) => 8 + index * 20)
  const machines = parts.map((at) => MACH_MACHINES[head.readUInt32BE(at)])
  return {
    platform: "darwin",
    architectures: machines.filter((machine) => machine !== undefined),
    whole: parts.every((at) => head.readUInt32BE(at + 8) + head.readUInt32BE(at + 12) <= size),
  }
}

const PE_MACHINES: Record<number, string> = { 0x014c: "ia32", 0x8664: "x64", 0xaa64: "arm64" }

function portableExecutable(head: Buffer, size: number): Binary | undefined {
  if (head.length < 64 || head.readUInt16BE(0) !== 0x4d5a) return undefined
  const start = head.readUInt32LE(60)
  if (head.readUInt32BE(start) !== 0x50450000) return undefined
  const known = PE_MACHINES[head.readUInt16LE(start + 4)]
  const sections = start + 24 + head.readUInt16LE(start + 20)
  const ends = Array.from({ length: head.readUInt16LE(start + 6) }, (_, index) => {
    const at = sections + index * 40
    return head.readUInt32LE(at + 16) + head.readUInt32LE(at + 20)
  })
  return {
    platform: "win32",
    architectures: known === undefined ? [] : [known],
    whole: Math.max(0, ...ends) <= size,
  }
}

/** A place in a file, of 64 bits. */
function offset(head: Buffer, at: number): number {
  return Number(head.readBigUInt64LE(at))
}
