/** The conversation: kept in memory, so that it outlives a change of tab and ends with the page. */

import { stream } from './api.js'
import { noParameters, requestBody } from './snippets.js'

/**
 * @typedef {{promptTokens: number, cachedTokens: number | null, tokens: number, firstToken: number,
 *   perSecond: number | null}} Figures
 * @typedef {{role: string, content: string, reason?: string, error?: string, figures?: Figures | null}} Turn
 */

export const chat = $state({
  /** @type {Turn[]} */ turns: [],
  parameters: noParameters(),
  draft: '',
  isRunning: false,
})

/** @type {AbortController | null} */
let running = null

/** What the next request says: failed and empty answers are left out, with the questions they belong to.
 * @param {string} model */
export function nextBody(model) {
  const messages = []
  for (const [index, { role, content }] of chat.turns.entries()) {
    const answer = role === 'user' ? chat.turns[index + 1] : chat.turns[index]
    if (!answer || answer.content) messages.push({ role, content })
  }
  return requestBody(model, messages, chat.parameters)
}

/** @param {string} model */
export async function send(model) {
  const question = chat.draft.trim()
  if (!question || chat.isRunning) return
  chat.draft = ''
  chat.turns.push({ role: 'user', content: question })
  const body = nextBody(model)
  chat.turns.push({ role: 'assistant', content: '' })
  chat.isRunning = true
  running = new AbortController()
  try {
    await answer(body, chat.turns[chat.turns.length - 1], running.signal)
  } finally {
    chat.isRunning = false
    running = null
  }
}

export function stop() {
  running?.abort()
}

export function clear() {
  stop()
  chat.turns = []
}

/** Fills turn with what comes. @param {Record<string, any>} body @param {Turn} turn @param {AbortSignal} signal */
async function answer(body, turn, signal) {
  const begin = performance.now()
  const writer = paced((text) => (turn.content += text))
  let first = 0
  try {
    const asked = { ...body, stream: true, stream_options: { include_usage: true } }
    for await (const chunk of stream('/v1/chat/completions', asked, signal)) {
      const choice = chunk.choices?.[0]
      if (choice?.delta?.content) {
        first ||= performance.now()
        writer.add(choice.delta.content)
      }
      if (choice?.finish_reason) turn.reason = choice.finish_reason
      if (chunk.usage) turn.figures = figures(chunk.usage, begin, first)
    }
  } catch (error) {
    if (signal.aborted) turn.reason = 'stopped'
    else turn.error = /** @type {Error} */ (error).message
  } finally {
    writer.flush()
  }
}

/** As seen from here. tokens/s counts the tokens after the first.
 * @param {any} usage @param {number} begin @param {number} first
 * @returns {Figures} */
function figures(usage, begin, first) {
  const now = performance.now()
  const tokens = usage.completion_tokens
  const seconds = (now - first) / 1000
  return {
    promptTokens: usage.prompt_tokens,
    cachedTokens: usage.prompt_tokens_details?.cached_tokens ?? null,
    tokens,
    firstToken: ((first || now) - begin) / 1000,
    perSecond: first && tokens > 1 && seconds > 0 ? (tokens - 1) / seconds : null,
  }
}

/** Hands text on at most once in 40 ms: drawing Markdown for each token would take longer than the token.
 * @param {(text: string) => void} write */
function paced(write) {
  let waiting = ''
  let timer = 0
  const flush = () => {
    clearTimeout(timer)
    timer = 0
    if (waiting) write(waiting)
    waiting = ''
  }
  /** @param {string} text */
  const add = (text) => {
    waiting += text
    timer ||= setTimeout(flush, 40)
  }
  return { add, flush }
}
