// The entry point `syncline/http`: a store on one machine, and those who follow it on others.
export { syncRoutes } from "./http/routes"
export type { SyncRoutesOptions } from "./http/routes"
export type { Authorize, AuthorizeDecision, AuthorizeFunction, AuthorizeTokens, SyncAccess } from "./http/authorize"
