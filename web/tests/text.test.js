import assert from 'node:assert/strict'
import { test } from 'node:test'
import { client, duration, money, number, percent, short } from '../src/lib/format.js'
import { events } from '../src/lib/sse.js'
import { curl, noParameters, python, requestBody } from '../src/lib/snippets.js'

test('numbers have three digits, and a dash when they are not known', () => {
  assert.deepEqual(
    [0, 1234.5, 12.345, 0.012345, 7, null, NaN].map((value) => number(value)),
    ['0', '1,235', '12.3', '0.0123', '7', '–', '–'],
  )
  assert.deepEqual([0.0042, 0.9999, 12.34, 150, 7300, 200_000].map(duration), [
    '4.2 ms',
    '1 s',
    '12.3 s',
    '2 min 30 s',
    '2 h 1 min',
    '2 d 7 h',
  ])
  assert.deepEqual([0, 0.0123, 0.5, 1].map(percent), ['0 %', '1.2 %', '50 %', '100 %'])
  assert.equal(short(1_850_000), '1.85M')
  assert.equal(money(1234.5, 'EUR'), '1,234.5 EUR')
  assert.equal(client('key:4f1a9c0211223344'), 'key 4f1a9c02')
})

test('events come whole, wherever the bytes were cut', async () => {
  const bytes = new TextEncoder().encode(': keep-alive\n\ndata: {"a":"é"}\r\n\r\nevent: x\ndata: [DONE]\n\n')
  for (let size = 1; size <= bytes.length; size++) {
    const parts = Array.from({ length: Math.ceil(bytes.length / size) }, (_, i) =>
      bytes.slice(i * size, (i + 1) * size),
    )
    const found = []
    for await (const data of events(ReadableStream.from(parts))) found.push(data)
    assert.deepEqual(found, ['{"a":"é"}', '[DONE]'])
  }
})

test('a request holds what was set and nothing else', () => {
  const parameters = { ...noParameters(), system: 'Be brief.', temperature: 0, stop: 'a\n\nb' }
  const body = requestBody('m', [{ role: 'user', content: 'x' }], parameters)
  assert.deepEqual(body, {
    model: 'm',
    messages: [
      { role: 'system', content: 'Be brief.' },
      { role: 'user', content: 'x' },
    ],
    temperature: 0,
    stop: ['a', 'b'],
  })
})

test('copied texts quote what is quoted in a message', () => {
  const body = requestBody('m', [{ role: 'user', content: `it's "quoted"` }], { ...noParameters(), top_k: 5 })
  assert.match(curl('http://h', body, true), /it'\\''s \\"quoted\\"/)
  assert.match(curl('http://h', body, true), /Bearer \$INFERD_API_KEY/)
  assert.match(python('http://h', body, false), /extra_body=\{"top_k": 5\}/)
  assert.doesNotMatch(python('http://h', body, false), /INFERD_API_KEY/)
})
