/** Calls to the server that served this page; the API key goes with each of them. */

import { session } from './session.svelte.js'
import { events } from './sse.js'

export class ApiError extends Error {
  /** @param {string} message @param {number} status 0: the server could not be reached */
  constructor(message, status) {
    super(message)
    this.status = status
  }
}

/** @param {string} path @param {RequestInit} [options] @returns {Promise<Response>} */
async function call(path, options = {}) {
  const headers = new Headers(options.headers)
  if (session.key) headers.set('authorization', `Bearer ${session.key}`)
  let response
  try {
    response = await fetch(path, { ...options, headers, cache: 'no-store', credentials: 'omit', redirect: 'error' })
  } catch (error) {
    if (/** @type {Error} */ (error).name === 'AbortError') throw error
    throw new ApiError('The server cannot be reached.', 0)
  }
  if (response.ok) return response
  if (response.status === 401) session.isKeyNeeded = true
  throw new ApiError(await reason(response), response.status)
}

/** @param {Response} response */
async function reason(response) {
  try {
    const { message, param } = (await response.json()).error
    return param ? `${message} (${param})` : message
  } catch {
    return `The server answered with status ${response.status}.`
  }
}

/** @param {string} path @param {AbortSignal} [signal] */
export async function get(path, signal) {
  return (await call(path, { signal })).json()
}

/** @param {unknown} body @returns {RequestInit} */
function posted(body) {
  return { method: 'POST', headers: { 'content-type': 'application/json' }, body: JSON.stringify(body) }
}

/** @param {string} path @param {unknown} body @param {AbortSignal} [signal] */
export async function post(path, body, signal) {
  return (await call(path, { ...posted(body), signal })).json()
}

/**
 * The chunks of a streamed answer. Ends when the server ends it; throws ApiError, also for an error within the stream.
 * @param {string} path @param {unknown} body @param {AbortSignal} signal
 */
export async function* stream(path, body, signal) {
  const response = await call(path, { ...posted(body), signal })
  for await (const data of events(/** @type {ReadableStream<Uint8Array>} */ (response.body))) {
    if (data === '[DONE]') return
    const chunk = JSON.parse(data)
    if (chunk.error) throw new ApiError(chunk.error.message, 200)
    yield chunk
  }
  throw new ApiError('The answer broke off: the connection was closed.', 0)
}
