/** The request of a chat, and the same request as a shell command and as a Python program. */

/**
 * @typedef {{role: string, content: string}} Message
 * @typedef {{system: string, temperature: number | null, top_p: number | null, top_k: number | null,
 *   min_p: number | null, repetition_penalty: number | null, max_tokens: number | null, seed: number | null,
 *   stop: string}} Parameters
 */

export const NUMBERS = /** @type {const} */ ([
  { name: 'temperature', label: 'Temperature', min: 0, max: 2, step: 0.05, hint: '0 always takes the likeliest token' },
  { name: 'top_p', label: 'Top p', min: 0.01, max: 1, step: 0.01, hint: 'Likeliest tokens up to this share' },
  { name: 'top_k', label: 'Top k', min: 0, max: 1000, step: 1, hint: '0: no limit' },
  { name: 'min_p', label: 'Min p', min: 0, max: 1, step: 0.01, hint: 'At least this share of the likeliest' },
  { name: 'repetition_penalty', label: 'Repetition penalty', min: 0.1, max: 2, step: 0.05, hint: '1: none' },
  { name: 'max_tokens', label: 'Max tokens', min: 1, max: 1048576, step: 1, hint: 'Of the answer' },
  { name: 'seed', label: 'Seed', min: 0, max: 4294967295, step: 1, hint: 'The same seed, the same answer' },
])

/** @returns {Parameters} fields left null are not sent: the model's own defaults hold */
export function noParameters() {
  const numbers = Object.fromEntries(NUMBERS.map(({ name }) => [name, null]))
  return /** @type {Parameters} */ ({ system: '', stop: '', ...numbers })
}

/** @param {string} model @param {Message[]} messages @param {Parameters} parameters @returns {Record<string, any>} */
export function requestBody(model, messages, parameters) {
  const { system, stop, ...numbers } = parameters
  const set = Object.entries(numbers).filter(([, value]) => value !== null && Number.isFinite(value))
  const stops = stop.split('\n').filter(Boolean)
  return {
    model,
    messages: [...(system.trim() ? [{ role: 'system', content: system }] : []), ...messages],
    ...Object.fromEntries(set),
    ...(stops.length ? { stop: stops } : {}),
  }
}

/** @param {string} base @param {Record<string, any>} body @param {boolean} hasKey */
export function curl(base, body, hasKey) {
  const quoted = JSON.stringify(body, null, 2).replaceAll("'", "'\\''")
  const key = hasKey ? ' \\\n  -H "authorization: Bearer $INFERD_API_KEY"' : ''
  return `curl ${base}/v1/chat/completions -H "content-type: application/json"${key} \\\n  -d '${quoted}'\n`
}

const EXTRA = new Set(['top_k', 'min_p', 'repetition_penalty']) // not among the arguments of the openai package

/** A value as a Python literal. @param {unknown} value @returns {string} */
function literal(value) {
  if (value === null) return 'None'
  if (value === true) return 'True'
  if (value === false) return 'False'
  if (Array.isArray(value)) return `[${value.map(literal).join(', ')}]`
  if (typeof value === 'object') {
    return `{${Object.entries(/** @type {object} */ (value))
      .map(([key, item]) => `${JSON.stringify(key)}: ${literal(item)}`)
      .join(', ')}}`
  }
  return JSON.stringify(value) // JSON's escapes of a text are also Python's
}

/** @param {string} base @param {Record<string, any>} body @param {boolean} hasKey */
export function python(base, body, hasKey) {
  const { messages, ...rest } = body
  const extra = Object.fromEntries(Object.entries(rest).filter(([name]) => EXTRA.has(name)))
  const plain = Object.entries(rest).filter(([name]) => !EXTRA.has(name))
  const lines = [
    ...(hasKey ? ['import os', ''] : []),
    'from openai import OpenAI',
    '',
    `client = OpenAI(base_url=${literal(`${base}/v1`)}, api_key=${hasKey ? 'os.environ["INFERD_API_KEY"]' : '"none"'})`,
    'answer = client.chat.completions.create(',
    ...plain.map(([name, value]) => `    ${name}=${literal(value)},`),
    '    messages=[',
    ...messages.map((/** @type {Message} */ message) => `        ${literal(message)},`),
    '    ],',
    ...(Object.keys(extra).length ? [`    extra_body=${literal(extra)},`] : []),
    ')',
    'print(answer.choices[0].message.content)',
  ]
  return lines.join('\n') + '\n'
}
