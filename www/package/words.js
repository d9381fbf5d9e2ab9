// What all parts of the shell say errors with.

/** An Error with a stable code. */
export const fail = (code, message) => Object.assign(new Error(message), { code })
