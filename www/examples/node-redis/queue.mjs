// A job queue that all workers agree on. No two workers get the same job, because the leader decides each claim.
import conflux from 'conflux-wasm'

export const join = (id) =>
  conflux({
    id,
    members: ['ada', 'bob', 'cem'],
    channel: { name: 'redis', channelName: 'jobs', connectionString: process.env.REDIS_URL },
    methods: {
      add: (names) => ({ type: 'ADDED', names }),
      claim(worker) {
        const job = this.getProvisionalState().find(({ worker }) => worker === null)
        return job && { type: 'CLAIMED', name: job.name, worker }
      },
      finish(name, worker) {
        const job = this.getProvisionalState().find((job) => job.name === name)
        // This worker was taken for dead, and its job was given to another one.
        if (job?.worker !== worker || job.done) return new Error(`${name} is not ${worker}'s any more`)
        return { type: 'FINISHED', name }
      },
      release: (worker) => ({ type: 'RELEASED', worker }),
    },
    reduce(jobs = [], action) {
      const change = (concerns, what) => jobs.map((job) => (concerns(job) ? { ...job, ...what(job) } : job))
      switch (action?.type) {
        case 'ADDED':
          return [...jobs, ...action.names.map((name) => ({ name, worker: null, done: 0 }))]
        case 'CLAIMED':
          return change(({ name }) => name === action.name, () => ({ worker: action.worker }))
        case 'FINISHED':
          return change(({ name }) => name === action.name, ({ done }) => ({ done: done + 1 }))
        case 'RELEASED':
          return change(({ worker, done }) => worker === action.worker && done === 0, () => ({ worker: null }))
        default:
          return jobs
      }
    },
  })
