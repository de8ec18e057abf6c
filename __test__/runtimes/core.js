"use strict"

// The suite's core, which every runtime runs: the files that go the public way, and take seconds. What the others hold (long
// models, crashes, memory, full disks) is the Rust core's, and the same under whatever loads it.

/** Files of __test__, in their order. */
const CORE = [
  "10.define 11.file-gone 12.open 14.constraints",
  "20.run 21.upcast 22.schema 23.project 24.record 25.database 26.drizzle 27.kysely 28.sync-event",
  "30.transaction 31.async 32.lost 35.compaction 36.packing-readers",
  "40.publish 41.convert 42.ephemeral 43.database-scope 44.stream 46.refused 47.behind 48.resume",
  "50.replay 52.sequence 53.json 54.gap 55.stats",
  "60.log 61.owner 62.remove 63.follow 64.changes 65.wait 66.watch",
  "70.errors 71.limits 72.hostile 73.misuse 75.reentry 77.regressions 79.unknown-types",
  "80.threads 81.processes 83.garbage 86.stream-threads 88.alive",
  "100.export 101.import 104.export-file",
  "110.routes 112.live 115.replay-route 116.resume 117.http-versions",
  "120.follow 121.older-server 122.push 123.transfer 133.cli-share",
].flatMap((line) => line.split(" "))

/** Files that are left out, and why. */
const LEFT_OUT = {
  deno: {
    "80.threads":
      "terminate comes back before a worker has ended, or does not end it: deno.test.js has tests of its own",
    "86.stream-threads": "the same, and each of its tests waits for locks that do not come back",
    "117.http-versions": "its client of HTTP/2 tells of data before it tells of the answer, which the tests wait for",
    "133.cli-share":
      "its child_process says of a child that has handled a signal that it ended by it: deno.test.js has one",
  },
}

/**
 * By runtime and file: tests that fail there, because of what the runtime does otherwise. One that passes is a failure,
 * too: then it is to be taken off this list, and out of docs/runtimes.md.
 */
const KNOWN_FAILURES = {
  bun: {
    // Strings may be four times as long.
    "77.regressions": ["text that JavaScript cannot hold is an error, not undefined"],
    // Its HTTP/2 ends a stream that broke off like one that is whole; the items that end a history still tell them apart.
    "117.http-versions": ["what cannot be completed does not end as a whole answer does"],
  },
  deno: {
    // Deno loads one copy of a package for require and import, where Node loads two.
    "26.drizzle": ["works with tables that an ES module made: drizzle-orm exists twice in such a process"],
    // process.stdin has no unref.
    "88.alive": [
      "issue 3: a pending next of a following log does, until it is aborted",
      "issue 3: nothing does once its store is closed",
    ],
    // Only its child_process knows -e, and here a shell starts the program.
    "104.export-file": ["a disk that takes no more"],
    // Destroying the socket of a request answers it with status 500.
    "123.transfer": ["to what was carried out is as good as one that came"],
  },
}

module.exports = { CORE, KNOWN_FAILURES, LEFT_OUT }
