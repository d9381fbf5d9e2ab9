// Mutants that nothing notices. Each is known by its file, what it is, and a part of its line.

/** Those that nothing can notice, or need notice, and why. */
export const UNNOTICED = []

/** Those for which a test is still missing. */
export const OPEN = []
