// npm runs it before it would publish a clone.
console.error(
  "A clone is not published: its tarball would hold the addon of one platform, and nothing for the others. A release is made\n" +
    "by the release workflow, through scripts/stage.mjs and scripts/publish.mjs.",
)
process.exitCode = 1
