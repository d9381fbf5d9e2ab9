// For a server of your own: what nodes on the channel `socket.io` need there.
'use strict'

/** The longest name of a channel or a node, in bytes. */
const MAX_NAME = 256
/** The largest frame, in bytes. */
const MAX_FRAME = 1 << 20

const isName = (name) => typeof name === 'string' && name !== '' && Buffer.byteLength(name) <= MAX_NAME

/**
 * Lets nodes speak to each other through this HTTP server. Rooms are apart: nobody hears another channel.
 * Gives a function that closes the sockets and lets go of the server.
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
