// The entry for `import`; socket.io.cjs has the code.
import server from './socket.io.cjs'

export const { enhanceServerForSocketIOChannel } = server
