// For `import`: see socket.io.cjs.
import server from './socket.io.cjs'

export const { enhanceServerForSocketIOChannel } = server
