import type { Context } from "hono"
import { accepts } from "hono/accepts"
import type { Encoding } from "../../compression"
import type { Format } from "./body"

/** What the client wants of an answer that can be JSON or NDJSON: JSON, unless it names the other, and not as the worse one. */
export function acceptedFormat(context: Context): Format {
  const format = accepts(context, {
    header: "Accept",
    supports: ["application/json", "application/x-ndjson"],
    default: "application/json",
    match: (offers) => {
      const quality = (type: string) => offers.find((offer) => offer.type.toLowerCase() === type)?.q ?? 0
      const ndjson = quality("application/x-ndjson")
      return ndjson > 0 && ndjson >= quality("application/json") ? "application/x-ndjson" : "application/json"
    },
  })
  return format === "application/json" ? "json" : "ndjson"
}

/** The best encoding that the client takes; zstd where it does not mind. Undefined: none. */
export function acceptedEncoding(context: Context): Encoding | undefined {
  const encoding = accepts(context, {
    header: "Accept-Encoding",
    supports: ["zstd", "gzip", "identity"],
    default: "identity",
    match: (offers) => {
      const named = (name: string) => offers.find((offer) => offer.type.toLowerCase() === name)?.q
      const zstd = named("zstd") ?? 0
      // Who takes anything can at least do what everybody can.
      const gzip = named("gzip") ?? named("*") ?? 0
      const best = Math.max(zstd, gzip)
      if (best === 0 || best < (named("identity") ?? 0)) return "identity"
      return zstd === best ? "zstd" : "gzip"
    },
  })
  return encoding === "identity" ? undefined : (encoding as Encoding)
}
