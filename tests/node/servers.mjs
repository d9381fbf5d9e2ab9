// Starts third-party servers that tests need.
import { spawn } from 'node:child_process'
import { once } from 'node:events'

/** Starts a Redis server that stores nothing on the disk. Returns a function that kills it. */
export const startRedis = async (port) => {
  const args = ['--port', String(port), '--bind', '127.0.0.1', '--save', '', '--appendonly', 'no']
  const server = spawn(process.env.REDIS_SERVER ?? 'redis-server', args, { stdio: ['ignore', 'pipe', 'ignore'] })
  for await (const chunk of server.stdout) if (String(chunk).includes('Ready to accept')) break
  return async () => {
    server.kill('SIGKILL')
    await once(server, 'exit')
  }
}
