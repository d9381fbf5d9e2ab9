// The server's side of the channel `socket.io`: passes frames between the nodes that connect to it.
'use strict'

/** The largest length of a channel's or a node's name, in bytes. */
const MAX_NAME = 256
/** The largest size of a frame, in bytes. */
const MAX_FRAME = 1 << 20

const isName = (name) => typeof name === 'string' && name !== '' && Buffer.byteLength(name) <= MAX_NAME

/**
 * Attaches a socket.io server to this HTTP server, through which nodes reach each other. Each channel is a room of its
 * own: a node receives frames of its own channel only. Returns a function that closes all sockets and the HTTP server.
 */
const enhanceServerForSocketIOChannel = (server, options = {}) => {
  let Server
  try {
    ;({ Server } = require('socket.io'))
  } catch {
    const message = 'a server for the channel `socket.io` needs the npm package socket.io: npm install socket.io'
    throw Object.assign(new Error(message), { code: 'MISSING_PEER' })
  }
  const io = new Server(server, { maxHttpBufferSize: MAX_FRAME + 1024, serveClient: false, ...options })
  io.on('connection', (socket) => {
    let room
    socket.on('conflux:join', (channel, id) => {
      if (room !== undefined || !isName(channel) || !isName(id)) return socket.disconnect(true)
      room = JSON.stringify([channel])
      socket.join([room, JSON.stringify([channel, id])])
      return undefined
    })
    socket.on('conflux:frame', (to, frame) => {
      const fits = room !== undefined && (to === null || isName(to)) && Buffer.isBuffer(frame) && frame.length <= MAX_FRAME
      if (!fits) return socket.disconnect(true)
      socket.to(to === null ? room : JSON.stringify([JSON.parse(room)[0], to])).emit('conflux:frame', frame)
      return undefined
    })
  })
  return () => io.close()
}

module.exports = { enhanceServerForSocketIOChannel }
