// The entry for `require` in Node.js.
'use strict'
const { CoreNode } = require('./conflux.cjs')
const { createConflux } = require('./shell.cjs')

const conflux = createConflux(CoreNode)
module.exports = conflux
module.exports.conflux = conflux
module.exports.default = conflux
