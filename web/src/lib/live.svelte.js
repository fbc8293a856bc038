/** The server's state, asked for once a second while the page is visible, and ten minutes of it for the charts. */

import { get } from './api.js'
import { session } from './session.svelte.js'

/**
 * @typedef {import('./types').ModelState} ModelState
 * @typedef {import('./types').Sample} Sample
 */

const LENGTH = 600 // samples
const INTERVAL = 1000 // ms

export const live = $state({
  /** @type {import('./types').State | null} */ state: null,
  /** @type {import('./types').ModelCard[]} */ cards: [],
  /** @type {string} */ error: '',
  isMissing: false, // a server without this route
  model: '', // the chosen one
  numSamples: 0, // grows with each: what draws history depends on it
})

/** @type {Map<string, Sample[]>} */
const history = new Map()
/** @type {Map<string, {time: number, model: ModelState}>} */
const last = new Map()

/** @param {string} name @returns {Sample[]} oldest first, at most ten minutes */
export function samples(name) {
  return history.get(name) ?? []
}

/** The chosen model's state, or the first one's. @returns {ModelState | null} */
export function current() {
  const models = live.state?.models ?? []
  return models.find((model) => model.name === live.model) ?? models[0] ?? null
}

/** What a request calls the chosen model. */
export function currentName() {
  return live.model || live.state?.models[0]?.name || live.cards[0]?.id || ''
}

/** A total's growth per second; null after a restart.
 * @param {number} now @param {number} before @param {number} seconds */
function rate(now, before, seconds) {
  return seconds > 0 && now >= before ? (now - before) / seconds : null
}

/** @param {ModelState} model @param {number} time */
function sample(model, time) {
  const before = last.get(model.name)
  last.set(model.name, { time, model })
  if (!before || time <= before.time) return
  const seconds = time - before.time
  const of = (/** @type {string} */ name) => rate(model.totals[name], before.model.totals[name], seconds)
  const blocks = Math.max(1, model.num_blocks)
  const busy = rate(model.busy_seconds, before.model.busy_seconds, seconds)
  const list = history.get(model.name) ?? []
  list.push({
    time,
    generated: of('generation_tokens'),
    prompt: of('prompt_tokens'),
    running: model.num_running,
    waiting: model.num_waiting,
    used: model.num_used_blocks / blocks,
    cached: model.num_cached_blocks / blocks,
    step: model.batch_size ? model.step_seconds : null,
    busy: busy === null ? null : Math.min(1, busy), // the two clocks differ by a step
  })
  if (list.length > LENGTH) list.shift()
  history.set(model.name, list)
}

async function poll() {
  try {
    if (!live.cards.length || live.cards.some((card) => card.max_model_len === null))
      live.cards = (await get('/v1/models')).data
    if (live.isMissing) return
    const state = await get('/inferd/state')
    for (const model of state.models) sample(model, state.now)
    live.state = state
    live.numSamples += 1
    live.error = ''
  } catch (error) {
    const { status, message } = /** @type {import('./api.js').ApiError} */ (error)
    live.isMissing = status === 404
    live.error = status === 404 || status === 401 ? '' : message
  }
}

/** Polls until the returned function is called. A hidden page asks nothing; nor does one that lacks the key. */
export function follow() {
  let isOver = false
  const loop = async () => {
    while (!isOver) {
      if (!document.hidden && !session.isKeyNeeded) await poll()
      await new Promise((resolve) => setTimeout(resolve, INTERVAL))
    }
  }
  loop()
  return () => (isOver = true)
}
