// The entry for `require` in Node.js.
'use strict'
const { CoreNode } = require('./conflux.cjs')
const { createConflux } = require('./shell.cjs')

const { Files } = require('./files.cjs')

const conflux = createConflux(CoreNode, {
  require,
  missing: () => 'a browser, and this is none',
  files: (options, core) => new Files(options, core, CoreNode.isWhole),
})
module.exports = conflux
module.exports.conflux = conflux
module.exports.default = conflux
