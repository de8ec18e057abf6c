/**
 * A log on a NATS JetStream cluster: what one store commits, for any number of readers, whether its writer is there or not.
 * @module syncline/nats
 */

export { relay } from "./nats/relay"
export type { RelayOptions } from "./nats/relay"
export { replicate } from "./nats/replicate"
export type { ReplicateOptions } from "./nats/replicate"
export { claim, release, transfer } from "./nats/ownership"
export type { ClaimOptions, ClusterOwnership, OwnershipOptions, TransferOptions } from "./nats/ownership"
export type { ClusterOptions } from "./nats/cluster"
export type { FollowDetail, FollowStatus } from "./follow/following"
export type { BackoffOptions } from "./follow/backoff"
