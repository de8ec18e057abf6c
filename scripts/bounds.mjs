// How large what is published may be, in bytes. Staging fails over them, and so do the tests of the package.

/** The packed root package, which holds no binary. */
export const ROOT_TARBALL = 300_000

/** The addon for Linux, unpacked. */
export const LINUX_ADDON = 4_000_000

/** The oldest glibc that the addons for Linux load with. */
export const LOWEST_GLIBC = "2.17"
