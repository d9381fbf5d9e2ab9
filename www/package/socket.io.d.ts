import type { Server } from 'node:http'

/**
 * Attaches a socket.io server to this HTTP server, through which nodes on the channel `socket.io` reach each other.
 * Needs the npm package `socket.io`, and throws `MISSING_PEER` without it.
 * @param options passed to socket.io's `Server`
 * @returns a function that disconnects all sockets and closes the HTTP server, too
 */
export declare function enhanceServerForSocketIOChannel(server: Server, options?: object): () => Promise<void>
