// A worker whose only business is time: in a hidden page timers ring once a second, and after a while
// once a minute; a worker's go on as before.
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
