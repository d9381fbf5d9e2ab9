'use client'
// Rendered on the server first, where the import must not fail and nothing is started.
import conflux from 'conflux-wasm'
import { useConflux } from 'conflux-wasm/react'
import { useEffect, useState } from 'react'

export default function Page() {
  const [node, setNode] = useState(null)
  const state = useConflux(node)
  useEffect(() => {
    const node = conflux({
      cluster: 'next',
      channel: { name: 'broadcast' },
      methods: { add: (n) => n },
      reduce: (state = 0, action) => state + (action ?? 0),
    })
    setNode(node)
    node.perform('add', [7])
    return () => void node.close()
  }, [])
  return <p>{state === undefined ? 'no node yet' : `state ${state}`}</p>
}
