import { readFile } from 'node:fs/promises'
import http from 'node:http'
import path from 'node:path'

const types = { '.html': 'text/html', '.js': 'text/javascript', '.wasm': 'application/wasm' }

const server = http.createServer(async (request, response) => {
  const { pathname } = new URL(request.url, 'http://localhost')
  const file = path.join('.', path.normalize(pathname === '/' ? '/index.html' : pathname))
  try {
    const body = await readFile(file)
    response.writeHead(200, { 'content-type': types[path.extname(file)] ?? 'application/octet-stream' })
    response.end(body)
  } catch {
    response.writeHead(404).end()
  }
})
server.listen(process.env.PORT ?? 8000, '127.0.0.1', () => {
  console.log(`http://localhost:${server.address().port}/`)
})
