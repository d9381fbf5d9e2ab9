// A page whose node lives in a dedicated worker.
const worker = new Worker(new URL('./worker.js', import.meta.url), { type: 'module' })
worker.onmessage = ({ data }) => {
  document.title = data
}
