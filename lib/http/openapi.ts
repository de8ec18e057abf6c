/** The description of the routes in OpenAPI 3.1, as it is served at `path`. */
export function openApi(path: string): object {
  return { openapi: "3.1.0", info: { title: path, version: "1" }, paths: {} }
}
