// The entry for `import` in Node.js. It shares one core with `require`, so that nodes made through
// either reach each other on the memory channel.
import conflux from './node.cjs'

export { conflux }
export default conflux
