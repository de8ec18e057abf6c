// The entry point `syncline/http`: a store on one machine, and those who follow it on others.
export { syncRoutes } from "./http/routes"
export type { SyncRoutesOptions } from "./http/routes"
export type { Authorize, AuthorizeDecision, AuthorizeFunction, AuthorizeTokens, SyncAccess } from "./http/authorize"
export { follow } from "./http/follow"
export type { FollowDetail, FollowOptions, FollowStatus } from "./http/follow"
export type { BackoffOptions } from "./http/backoff"
export type { RemoteOptions } from "./http/remote"
