// A worker that runs timers for the page. Browsers delay the timers of a hidden page to one a second, and after some
// minutes to one a minute; they do not delay the timers of a worker.
const timers = new Map()

onmessage = ({ data: { id, ms } }) => {
  clearTimeout(timers.get(id))
  timers.delete(id)
  if (ms >= 0) {
    timers.set(id, setTimeout(() => {
      timers.delete(id)
      postMessage(id)
    }, ms))
  }
}
