"use strict"

// What was ever written to the accounts of a ledger, and so what the tables of whoever has read so far must say: the model
// of suite 15, which knows nothing of SQL, packing or replay.

const assert = require("node:assert/strict")
const { fold, projected } = require("./ledger.js")

const KEYS = "SELECT key FROM event_sequence WHERE aggregate_id = ?"
const TOMBSTONE = "SELECT removed_seq FROM event_sequence WHERE aggregate_id = ?"

class History {
  /** By account: its events by seq, and through which seqs it was removed. */
  accounts = new Map()

  of(account) {
    if (!this.accounts.has(account)) this.accounts.set(account, { events: [], removals: [] })
    return this.accounts.get(account)
  }

  /** The last seq of an account. */
  last(account) {
    return this.of(account).events.length - 1
  }

  add(account, seq, type, data) {
    const { events } = this.of(account)
    assert.equal(seq, events.length, `${account} goes on with ${seq}`)
    events.push({ type, data })
  }

  removed(account, through) {
    this.of(account).removals.push(through)
  }

  /** Asserts that the tables of a store are as after some commit, for each account as far as the store has come. */
  check(store, story) {
    const rows = projected(store)
    for (const { aggregateID: account, seq } of store.aggregates()) {
      const removed = store.db.prepare(TOMBSTONE).pluck().get(account) ?? -1
      const missed = this.of(account).removals.filter((through) => through > removed && through < seq)
      assert.deepEqual(missed, [], `${story}: ${account} is at ${seq}, and has missed a removal`)
      assert.ok(seq <= this.last(account), `${story}: ${account} is at ${seq}, which nobody wrote`)
      const given = Object.fromEntries(
        Object.entries(rows).map(([table, all]) => [table, all.filter(([id]) => id === account)]),
      )
      this.compare(store, account, removed, seq, given, `${story}: ${account} at ${seq}, removed through ${removed}`)
    }
    const strangers = Object.values(rows).flatMap((all) => all.filter(([id]) => !this.accounts.has(id)))
    assert.deepEqual(strangers, [], story)
  }

  compare(store, account, removed, seq, given, story) {
    const wanted = { account: [], tag: [], label: new Map(), status: new Map() }
    let [entries, digest] = [0, 0]
    const { events } = this.of(account)
    for (let at = removed + 1; at <= seq; at++) {
      const { type, data } = events[at]
      const { text } = data
      if (type === "account.closed") {
        ;[entries, digest] = [0, 0]
        for (const list of [wanted.account, wanted.tag]) list.length = 0
        for (const map of [wanted.label, wanted.status]) map.clear()
      } else if (type === "entry.added") {
        ;[entries, digest] = [entries + 1, fold(digest, at, text)]
        wanted.account = [[account, entries, digest, at]]
      } else if (type === "entry.tagged") wanted.tag.push([account, at, data.tag])
      else if (type === "label.saved") this.save(wanted.label, data.key, at)
      else if (type === "status.set") this.save(wanted.status, account, at)
    }
    assert.deepEqual(given.account, wanted.account, story)
    assert.deepEqual(given.tag, wanted.tag, story)
    const gaps = gapsOf(store, account)
    assert.deepEqual(given.label.map(([, key]) => key).toSorted(), [...wanted.label.keys()].toSorted(), story)
    for (const [, key, first, at, text] of given.label) {
      assert.equal(first, wanted.label.get(key)[0], `${story}: the first of label ${key}`)
      this.checkNewest(account, at, text, wanted.label.get(key), gaps, `${story}: label ${key}`)
    }
    assert.equal(given.status.length, wanted.status.size, story)
    for (const [, at, text] of given.status) {
      this.checkNewest(account, at, text, wanted.status.get(account), gaps, `${story}: its status`)
    }
  }

  save(map, key, at) {
    map.set(key, [...(map.get(key) ?? []), at])
  }

  /** What a key says is the newest there is, but for those that a gap says are superseded by one that is still to come. */
  checkNewest(account, at, text, seqs, gaps, story) {
    assert.ok(seqs.includes(at), `${story} is from ${at}, not one of ${seqs}`)
    assert.equal(text, this.of(account).events[at].data.text, story)
    const newer = seqs.filter((seq) => seq > at && !gaps.some(([after, through]) => after < seq && seq <= through))
    assert.deepEqual(newer, [], `${story} is from ${at}`)
  }
}

function gapsOf({ db }, account) {
  const gaps = db.prepare(`SELECT after, through FROM event_gap WHERE aggregate = (${KEYS}) ORDER BY after`)
  return gaps.raw().all(account)
}

module.exports = { History }
