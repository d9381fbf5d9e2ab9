// Mutants that nothing notices, and why nothing can, or need. Each is known by its file, what it is, and a part of its line.
export const UNNOTICED = []
