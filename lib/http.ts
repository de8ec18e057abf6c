/**
 * A store on one machine, and those who follow it on others: routes for a server, and calls for its clients.
 * @module syncline/http
 */

export { syncRoutes } from "./http/server/routes"
export type { SyncRoutesOptions } from "./http/server/routes"
export type {
  Authorize,
  AuthorizeDecision,
  AuthorizeFunction,
  AuthorizeTokens,
  SyncAccess,
} from "./http/server/authorize"
export { follow } from "./http/client/follow"
export type { FollowOptions } from "./http/client/follow"
export type { FollowDetail, FollowStatus } from "./follow/following"
export { push } from "./http/client/push"
export type { PushOptions, PushProgress, PushResult } from "./http/client/push"
export { transfer } from "./http/client/transfer"
export type { TransferOptions, Transferred } from "./http/client/transfer"
export type { BackoffOptions } from "./follow/backoff"
export type { RemoteOptions } from "./http/client/remote"
