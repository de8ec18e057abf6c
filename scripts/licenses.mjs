// node scripts/licenses.mjs: writes THIRD_PARTY_LICENSES, the licences of all code that is compiled into the addon, from
// cargo's metadata and the crates' own files. Needed after changes of Cargo.lock; a test says so.
// node scripts/licenses.mjs --check [file]: tells what is missing from that file, or stands there in vain, and writes nothing.
// It looks at the crates of this platform, since the sources of the others need not be here.
import { readdirSync, readFileSync, writeFileSync } from "node:fs"
import { dirname, join, resolve as absolute } from "node:path"
import { root, run } from "./process.mjs"

/** How the terms of each licence begin, after title and copyright. Of several offered licences the first here is taken. */
const TERMS = {
  MIT: /Permission is hereby granted, free of charge, to any person obtaining a copy of this software/,
  ISC: /Permission to use, copy, modify, and(?:\/or)? distribute this software/,
  Zlib: /This software is provided 'as-is'/,
  "BSL-1.0": /Permission is hereby granted, free of charge, to any person or organization/,
  "BSD-3-Clause": /Redistribution and use in source and binary forms(?=[^]*Neither the name)/,
  "BSD-2-Clause": /Redistribution and use in source and binary forms(?![^]*Neither the name)/,
  "Unicode-3.0": /Permission is hereby granted, free of charge, to any person obtaining a copy of data files/,
  "Apache-2.0": /TERMS AND CONDITIONS FOR USE, REPRODUCTION, AND DISTRIBUTION/,
}

/** What rustc adds from the standard library, of which cargo says nothing: from the notices that come with the compiler. */
const RUST = [
  ["Rust's standard library", "MIT", "Copyright (c) The Rust Project Developers (see https://thanks.rust-lang.org)"],
  ["Rust's std::sync::mpmc", "MIT", "Copyright (c) 2019 The Crossbeam Project Developers"],
  ["Rust's backtrace, cfg-if and rustc-demangle", "MIT", "Copyright (c) 2014 Alex Crichton"],
  ["Rust's gimli and libc", "MIT", "Copyright (c) 2014-2020 The Rust Project Developers"],
  ["Rust's hashbrown", "MIT", "Copyright (c) 2016 Amanieu d'Antras"],
  ["Rust's windows-sys, on Windows", "MIT", "Copyright (c) Microsoft Corporation."],
  ["Rust's foldhash", "Zlib", "Copyright (c) 2024 Orson Peters"],
  ["Rust's Unicode tables", "Unicode-3.0", "Copyright © 1991-2024 Unicode, Inc."],
]

const [mode, path = "THIRD_PARTY_LICENSES"] = process.argv.slice(2)
try {
  if (mode === "--check") await check(path)
  else await write()
} catch (error) {
  console.error(error.message)
  process.exitCode = 1
}

async function write() {
  const { targets } = JSON.parse(readFileSync(join(root, "package.json"), "utf8")).napi
  const crates = new Map()
  for (const target of targets) for (const crate of await bundledCrates(target)) crates.set(crate.name, crate)
  const sorted = [...crates.values()].toSorted((a, b) => (a.name < b.name ? -1 : 1))
  const parts = sorted.flatMap((crate) => crate.parts)
  for (const [name, license, notice] of RUST) {
    const known = parts.find((part) => part.license === license && part.terms !== undefined)
    parts.push({ name, license, notice, terms: known?.terms ?? (await termsOf(license)) })
  }
  const text = `${introduction(sorted)}\n${groups(parts).join("\n")}`
  writeFileSync(join(root, path), text)
  console.log(`${path}: ${crates.size} crates, ${text.length} bytes`)
}

async function check(file) {
  const written = readFileSync(absolute(root, file), "utf8")
  const locked = readFileSync(join(root, "Cargo.lock"), "utf8")
  const listed = [...written.matchAll(/^- (\S+ \d\S*): /gm)].map(([, name]) => name)
  const complaints = listed
    .filter((name) => {
      const [crate, version] = name.split(" ")
      return !locked.includes(`name = "${crate}"\nversion = "${version}"\n`)
    })
    .map((name) => `${name} is not in Cargo.lock`)
  const target = /^host: (.+)$/m.exec(await output("rustc", "-vV"))[1]
  for (const { name, parts } of await bundledCrates(target)) {
    if (!listed.includes(name)) complaints.push(`${name} is missing`)
    else if (!parts.every(({ notice }) => written.includes(wrapped(notice))))
      complaints.push(`the notice of ${name} is missing`)
  }
  if (complaints.length > 0) throw new Error(`${file}: ${complaints.join(", ")}. Run: node scripts/licenses.mjs`)
  console.log(`${file}: the ${listed.length} crates of Cargo.lock, checked for ${target}`)
}

/** The crates whose code is in a binary for this target: what the package needs when it runs, not what only builds it. */
async function bundledCrates(target) {
  const command = ["cargo", "metadata", "--quiet", "--format-version", "1", "--locked", "--filter-platform", target]
  const { packages, resolve } = JSON.parse(await output(...command))
  const packageOf = new Map(packages.map((crate) => [crate.id, crate]))
  const dependenciesOf = new Map(resolve.nodes.map((node) => [node.id, node.deps]))
  const reached = new Set()
  visit(resolve.root)
  reached.delete(resolve.root)
  return [...reached].map((id) => described(packageOf.get(id)))

  function visit(id) {
    // Macros run in the compiler, and so do the crates that only they need.
    const isMacro = packageOf.get(id).targets.some(({ kind }) => kind.includes("proc-macro"))
    if (isMacro || reached.has(id)) return
    reached.add(id)
    for (const { pkg, dep_kinds: kinds } of dependenciesOf.get(id)) {
      if (kinds.some(({ kind }) => kind === null)) visit(pkg)
    }
  }
}

/** A crate with the parts of the licences that it is used under: each a notice, which names the owners, and terms. */
function described(crate) {
  const name = `${crate.name} ${crate.version}`
  const folder = dirname(crate.manifest_path)
  const files = readdirSync(folder).filter((file) => /^(licen[cs]e|copying|unlicense)/i.test(file))
  const texts = files.toSorted().map((file) => unwrapped(readFileSync(join(folder, file), "utf8")))
  const parts = chosen(name, crate.license).flatMap((license) => {
    const found = texts.flatMap((text) => {
      const start = text.search(TERMS[license])
      return start < 0
        ? []
        : [{ name, license, notice: noticeIn(text.slice(0, start)), terms: text.slice(start).trim() }]
    })
    if (found.length > 0) return found
    // Some crates only name their licence. For the one that asks for nothing but a notice the authors stand in.
    if (license !== "MIT" || crate.authors.length === 0)
      throw new Error(`${name} has no file with the text of ${license}`)
    const authors = crate.authors.map((author) => author.replace(/ <.*/, "")).join(", ")
    return [{ name, license, notice: `Copyright (c) ${authors}`, terms: undefined }]
  })
  return { name, license: crate.license.replace(/ ?\/ ?/g, " OR "), parts, contains: contents(crate, folder) }
}

/** What is inside a crate and not its own. */
function contents(crate, folder) {
  if (crate.name === "libsqlite3-sys") {
    const [, version] = /define SQLITE_VERSION +"(.+)"/.exec(readFileSync(join(folder, "sqlite3/sqlite3.h"), "utf8"))
    return `SQLite ${version}, which is in the public domain`
  }
  return crate.name === "zstd-sys" ? `Zstandard ${crate.version.split("zstd.")[1]}` : undefined
}

/** The licences of an expression: all that AND joins, and one of what OR joins, or a slash in older manifests. */
function chosen(name, expression) {
  return expression.split(" AND ").map((offered) => {
    const options = offered.replace(/[()]/g, "").split(/ OR | ?\/ ?/)
    const license = Object.keys(TERMS).find((known) => options.includes(known))
    if (license === undefined) throw new Error(`${name}: scripts/licenses.mjs does not know ${offered}`)
    return license
  })
}

/** What stands before the terms and says whose they are; titles do not. */
function noticeIn(head) {
  const paragraphs = head.split("\n\n").filter((paragraph) => /copyright (\(c\)|©|\d)/i.test(paragraph))
  return paragraphs.join("\n\n")
}

async function termsOf(license) {
  const sysroot = (await output("rustc", "--print", "sysroot")).trim()
  const text = unwrapped(readFileSync(join(sysroot, "share/doc/rust/licenses", `${license}.txt`), "utf8"))
  return text.slice(text.search(TERMS[license])).trim()
}

function introduction(crates) {
  return `Third-party code in the binaries of Syncline

Made by scripts/licenses.mjs. The binaries contain these crates, not all of them on every platform, and Rust's standard
library. Where a crate offers several licences, it is used under the one below.

${crates.map(({ name, license, contains }) => `- ${name}: ${license}${contains ? `; contains ${contains}` : ""}`).join("\n")}
`
}

/** Each text once, after the names and notices of all that is used under it. Who names no owner has only the name. */
function groups(parts) {
  const texts = new Map()
  for (const part of parts) {
    const same = [...texts.values()].find((group) => group.license === part.license)
    const terms = part.terms ?? same?.terms
    const key = `${part.license} ${terms
      .toLowerCase()
      .match(/[a-z0-9]+/g)
      .join(" ")}`
    if (!texts.has(key)) texts.set(key, { license: part.license, terms, owners: new Map() })
    const { owners } = texts.get(key)
    owners.set(part.notice, [...(owners.get(part.notice) ?? []), part.name])
  }
  return [...texts.values()].map(({ license, terms, owners }) => {
    const list = [...owners].map(([notice, names]) =>
      wrapped([`${[...new Set(names)].join(", ")}:`, notice].join("\n").trim()),
    )
    return `${"=".repeat(80)}\n${license}\n\n${list.join("\n\n")}\n\n${"-".repeat(80)}\n${wrapped(terms)}\n`
  })
}

/** Paragraphs as one line each, so that two copies of one text are one; lines that name an owner each, and items, stay. */
function unwrapped(text) {
  const paragraphs = text
    .replaceAll("\r", "")
    .trim()
    .split(/\n\s*\n/)
  return paragraphs
    .map((paragraph) =>
      paragraph
        .trim()
        .replaceAll(/\s*\n\s*(?![\s*]|Copyright)/g, " ")
        .replaceAll(/[ \t]+/g, " "),
    )
    .join("\n\n")
}

function wrapped(text) {
  return text
    .split("\n")
    .map((line) =>
      line
        .trim()
        .replaceAll(/(.{1,100})(?: |$)/g, "$1\n")
        .trimEnd(),
    )
    .join("\n")
}

async function output(...command) {
  const { ok, output } = await run(command)
  if (!ok) throw new Error(output)
  return output
}
