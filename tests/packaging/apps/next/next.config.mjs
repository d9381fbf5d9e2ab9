import path from 'node:path'

// The folder above this one has the packages.
export default { turbopack: { root: path.resolve('..') } }
