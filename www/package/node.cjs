// The entry for `require` in Node.js.
'use strict'
const { Files } = require('./files.cjs')
const { createConflux } = require('./shell.cjs')

/**
 * Loads the core when the first node is made, not on import: a server that only renders pages imports the package and
 * makes no node, and its bundler may have moved the WebAssembly file.
 */
const load = () => {
  try {
    return require('./conflux.cjs').CoreNode
  } catch (error) {
    const hint = 'if a bundler has moved the package, let it leave conflux-wasm where it is (in Next.js: `serverExternalPackages`)'
    const message = `the WebAssembly module cannot be loaded: ${error.message}; ${hint}`
    throw Object.assign(new Error(message, { cause: error }), { code: 'CANNOT_LOAD' })
  }
}

const conflux = createConflux(load, {
  require,
  missing: () => 'a browser, and this is none',
  files: (options, core) => new Files(options, core),
})
module.exports = conflux
module.exports.conflux = conflux
module.exports.default = conflux
