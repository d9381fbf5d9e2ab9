import type { Server } from 'node:http'

/**
 * Lets nodes on the channel `socket.io` speak to each other through this HTTP server. Needs the npm package
 * `socket.io`, whose options may be given.
 * @returns closes the sockets and lets go of the server
 */
export declare function enhanceServerForSocketIOChannel(server: Server, options?: object): () => Promise<void>
