// node scripts/check-binary.mjs ADDON [--glibc 2.17 | none]: prints what a Linux addon weighs, the processor it is for and
// the newest glibc that it asks for. Fails when it is larger than its bound, was not stripped, or asks for a newer glibc.
import { readFileSync } from "node:fs"
import { basename } from "node:path"
import { parseArgs } from "node:util"
import { LINUX_ADDON } from "./bounds.mjs"

const SYMBOL_TABLE = 2
const VERSIONS_NEEDED = 0x6ffffffe
const PROCESSORS = { 62: "x64", 183: "arm64" }

try {
  const { values, positionals } = parseArgs({ options: { glibc: { type: "string" } }, allowPositionals: true })
  if (positionals.length !== 1) throw new Error("Usage: node scripts/check-binary.mjs ADDON [--glibc 2.17 | none]")
  const [file] = positionals
  const addon = inspect(file)
  console.log(
    `${basename(file)}: ${addon.bytes} bytes, ${addon.processor}, ${addon.glibc ? `glibc ${addon.glibc}` : "no glibc"}`,
  )
  const complaints = complain(basename(file), addon, values.glibc)
  if (complaints.length > 0) throw new Error(complaints.join("\n"))
} catch (error) {
  console.error(error.message)
  process.exitCode = 1
}

function complain(name, { bytes, stripped, processor, glibc, unnamed }, floor) {
  const complaints = []
  if (bytes >= LINUX_ADDON) complaints.push(`${name} has ${bytes} bytes, and must have fewer than ${LINUX_ADDON}.`)
  if (!stripped)
    complaints.push(`${name} still has its symbol table: build it with the release profile, which strips it.`)
  const named = /linux-(\w+)/.exec(name)?.[1]
  if (named !== undefined && named !== processor) complaints.push(`${name} is made for ${processor}.`)
  if (unnamed.length > 0) complaints.push(`${name} needs a glibc that has ${unnamed.join(" and ")}.`)
  if (floor === "none" && glibc) complaints.push(`${name} needs glibc, and should need none.`)
  else if (floor !== undefined && glibc && inOrder(floor, glibc) < 0) {
    complaints.push(
      `${name} needs glibc ${glibc}, and should load with ${floor}: build it with scripts/build-target.mjs.`,
    )
  }
  return complaints
}

/** What the headers of an ELF file tell: https://refspecs.linuxfoundation.org/elf/gabi4+/contents.html */
function inspect(file) {
  const bytes = read(file)
  const is64BitLittleEndian =
    bytes.length >= 64 && bytes.readUInt32BE(0) === 0x7f454c46 && bytes.readUInt16BE(4) === 0x0201
  if (!is64BitLittleEndian) throw new Error(`${file} is no addon for Linux: it is not a 64-bit ELF file.`)
  try {
    const sections = sectionsOf(bytes)
    const versions = sections.filter(({ type }) => type === VERSIONS_NEEDED)
    const names = versions.flatMap((section) => versionsNeeded(bytes, section, sections[section.link]))
    const glibc = names.filter((name) => name.startsWith("GLIBC_")).map((name) => name.slice("GLIBC_".length))
    const numbered = glibc.filter((name) => /^\d+(\.\d+)+$/.test(name)).toSorted(inOrder)
    return {
      bytes: bytes.length,
      stripped: sections.every(({ type }) => type !== SYMBOL_TABLE),
      processor: PROCESSORS[bytes.readUInt16LE(18)] ?? "another processor",
      glibc: numbered.at(-1),
      // Such as ABI_DT_RELR: an ability of the loader, which no number says.
      unnamed: glibc.filter((name) => !numbered.includes(name)),
    }
  } catch (error) {
    if (!(error instanceof RangeError)) throw error
    throw new Error(`${file} is cut off or damaged: its headers point past its end.`, { cause: error })
  }
}

function read(file) {
  try {
    return readFileSync(file)
  } catch (error) {
    throw new Error(`${file} cannot be read: ${error.code}. Is it built?`, { cause: error })
  }
}

function sectionsOf(bytes) {
  const table = Number(bytes.readBigUInt64LE(40))
  const [size, count] = [bytes.readUInt16LE(58), bytes.readUInt16LE(60)]
  return Array.from({ length: count }, (_, index) => {
    const at = table + index * size
    return {
      type: bytes.readUInt32LE(at + 4),
      offset: Number(bytes.readBigUInt64LE(at + 24)),
      link: bytes.readUInt32LE(at + 40),
      entries: bytes.readUInt32LE(at + 44),
    }
  })
}

/** A chain of libraries, and for each of them a chain of the versions that the linker bound symbols to. */
function versionsNeeded(bytes, { offset, entries }, strings) {
  const names = []
  for (let library = offset, left = entries; left > 0; left--) {
    let version = library + bytes.readUInt32LE(library + 8)
    for (let count = bytes.readUInt16LE(library + 2); count > 0; count--) {
      const start = strings.offset + bytes.readUInt32LE(version + 8)
      names.push(bytes.toString("latin1", start, bytes.indexOf(0, start)))
      version += bytes.readUInt32LE(version + 12)
    }
    library += bytes.readUInt32LE(library + 12)
  }
  return names
}

function inOrder(a, b) {
  return a.localeCompare(b, "en", { numeric: true })
}
