// The entry for `import` in Node.js. It uses the same core as `require`, so that nodes made through either of them
// reach each other on the memory channel.
import conflux from './node.cjs'

export { conflux }
export default conflux
