// How all modules of the package make errors.

/** An Error with a stable code. */
export const fail = (code, message) => Object.assign(new Error(message), { code })
