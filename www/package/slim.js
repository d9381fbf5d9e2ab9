// The entry for those who bring the WebAssembly module themselves: from a cache, another origin, or a
// platform that compiles it beforehand.
import init, { CoreNode } from './conflux.js'
import { createConflux } from './shell.js'
import { browser } from './tabs.js'
import { fail } from './words.js'

let loaded

/**
 * Makes `conflux` from a module, its bytes, a response that brings it, or its address. Once is enough: the
 * next ones get the same.
 */
export const load = async (source) => {
  if (source === undefined || source === null) {
    const message = 'load() wants the WebAssembly module, its bytes, a Response or its address, and got nothing'
    throw fail('INVALID_ARGUMENT', message)
  }
  loaded ??= Promise.resolve(source).then((module_or_path) => init({ module_or_path }))
  try {
    await loaded
  } catch (error) {
    // It may succeed next time.
    loaded = undefined
    throw fail('CANNOT_LOAD', `the WebAssembly module cannot be loaded: ${error.message}`)
  }
  return createConflux(() => CoreNode, browser)
}
