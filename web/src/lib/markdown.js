/**
 * Markdown as a tree of plain nodes, to be drawn as elements and text. No HTML is ever made from it: tags in the text
 * stay text, and a link is a link only when it leads to http, https or mail.
 */

import { Lexer } from 'marked'

/** @typedef {import('./types').MarkdownNode} Node */

const MAX_DEPTH = 24
const PROTOCOLS = new Set(['http:', 'https:', 'mailto:'])
/** @type {Record<string, string>} */
const ENTITIES = {
  amp: '&', lt: '<', gt: '>', quot: '"', apos: "'", nbsp: '\u00a0', copy: '©', hellip: '…', mdash: '—', ndash: '–',
  larr: '←', rarr: '→', times: '×', deg: '°', euro: '€', pound: '£', middot: '·', bull: '•', le: '≤', ge: '≥', ne: '≠',
} // prettier-ignore

/** @param {string} text @returns {Node[]} */
export function parse(text) {
  try {
    return nodes(new Lexer({ gfm: true, breaks: true }).lex(text), 0)
  } catch (error) {
    if (!(error instanceof RangeError)) throw error
    return [textNode(text)] // nested deeper than the stack
  }
}

/** @param {string} href @returns {string | null} */
export function safeHref(href) {
  try {
    const url = new URL(href)
    return PROTOCOLS.has(url.protocol) ? url.href : null
  } catch {
    return null // relative, or no address at all
  }
}

/** Named entities; numbered ones the lexer has decoded already. @param {string} text */
function decode(text) {
  return text.replace(/&([a-z]{2,6});/g, (whole, name) => ENTITIES[name] ?? whole)
}

/** @param {string} text @returns {Node} */
function textNode(text) {
  return { type: 'text', text }
}

/** @param {any[] | undefined} tokens @param {number} depth @returns {Node[]} */
function nodes(tokens, depth) {
  return (tokens ?? []).flatMap((token) => (depth > MAX_DEPTH ? textNode(token.raw) : node(token, depth + 1)))
}

/** @param {any} token @param {number} depth @returns {Node | Node[]} */
function node(token, depth) {
  const inner = () => nodes(token.tokens, depth)
  switch (token.type) {
    case 'space':
    case 'def':
    case 'checkbox': // its list item knows
      return []
    case 'text':
      return token.tokens ? inner() : textNode(decode(token.text))
    case 'escape':
      return textNode(token.text)
    case 'heading':
      return { type: 'heading', level: Math.min(token.depth + 1, 6), children: inner() }
    case 'code':
      return { type: 'code', lang: (token.lang ?? '').split(/\s/)[0], text: token.text }
    case 'codespan':
      return { type: 'codespan', text: token.text }
    case 'paragraph':
    case 'blockquote':
    case 'strong':
    case 'em':
    case 'del':
      return { type: token.type, children: inner() }
    case 'br':
    case 'hr':
      return { type: token.type }
    case 'list':
      return {
        type: token.ordered ? 'ol' : 'ul',
        start: Number(token.start) || 1,
        children: token.items.map((/** @type {any} */ item) => ({
          type: 'item',
          checked: item.task ? Boolean(item.checked) : null,
          children: nodes(item.tokens, depth),
        })),
      }
    case 'table':
      return {
        type: 'table',
        align: token.align,
        head: token.header.map((/** @type {any} */ cell) => ({ type: 'cell', children: nodes(cell.tokens, depth) })),
        rows: token.rows.map((/** @type {any[]} */ row) =>
          row.map((cell) => ({ type: 'cell', children: nodes(cell.tokens, depth) })),
        ),
      }
    case 'link': {
      const href = safeHref(token.href)
      return href ? { type: 'link', href, children: inner() } : [...inner(), textNode(` (${token.href})`)]
    }
    case 'image': {
      const href = safeHref(token.href) // shown as a link: nothing is loaded from outside
      const label = textNode(token.text || token.href)
      return href ? { type: 'link', href, children: [label] } : label
    }
    default:
      return textNode(token.raw) // html, and whatever else there may come to be
  }
}
