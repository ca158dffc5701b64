// Without this file text would show its asterisks and angle brackets, mentions would be bare identifiers, and times those of nobody's zone.

import { el } from "./dom.js";
import { emoji, isEmoji } from "./emoji.js";

/** Slack's mrkdwn as nodes. `names` tells user(id), group(id), channel(id), me (id) and now() (epoch seconds). */
export function mrkdwn(text, names) {
  const root = el("div", { class: "text" });
  text.split(/```\n?([\s\S]+?)\n?```\n?/).forEach((part, index) => {
    root.append(...(index % 2 ? [el("pre", {}, decode(part))] : quotedAndPlain(part, names)));
  });
  return root;
}

/** Standard Markdown, as far as a "markdown" block of a bot needs it. */
export function markdown(text, names) {
  const root = el("div", { class: "text markdown" });
  text.split(/^```[^\n]*\n([\s\S]*?)\n?```[ \t]*$/m).forEach((part, index) => {
    root.append(...(index % 2 ? [el("pre", {}, part)] : paragraphs(part, names)));
  });
  return root;
}

/** Text that carries no markup; :emoji: only when `withEmoji`. */
export function plain(text, withEmoji) {
  return withEmoji ? scan(text, [emojiAt], (piece) => piece) : [text];
}

// -- mrkdwn ----------------------------------------------------------------------------------------------------------

const QUOTE = /^(?:&gt;|>) ?/;

function quotedAndPlain(text, names) {
  return grouped(text.split("\n"), (line) => QUOTE.test(line)).flatMap(([quoted, lines]) =>
    quoted
      ? [el("blockquote", {}, ...spans(lines.map((line) => line.replace(QUOTE, "")).join("\n"), names))]
      : spans(lines.join("\n"), names),
  );
}

/** Consecutive items with the same answer to `ask`, as [answer, items]. */
function grouped(items, ask) {
  const groups = [];
  for (const item of items) {
    const answer = ask(item);
    if (groups.length && groups.at(-1)[0] === answer) groups.at(-1)[1].push(item);
    else groups.push([answer, [item]]);
  }
  return groups;
}

function spans(text, names) {
  const inner = (part) => spans(part, names);
  const matchers = [
    codeAt(decode),
    (whole, at) => entityAt(whole, at, names),
    emojiAt,
    styleAt("*", "strong", inner),
    styleAt("_", "em", inner),
    styleAt("~", "del", inner),
  ];
  return scan(text, matchers, decode);
}

/** Slack escapes exactly these three. */
const decode = (text) => text.replaceAll("&lt;", "<").replaceAll("&gt;", ">").replaceAll("&amp;", "&");

/** Nodes and strings: at each place the first matcher that answers {node, end} wins; what nothing matches is text. */
function scan(text, matchers, toText) {
  const found = [];
  let begin = 0;
  let at = 0;
  while (at < text.length) {
    const match = firstMatch(text, at, matchers);
    if (!match) {
      at += 1;
      continue;
    }
    found.push(toText(text.slice(begin, at)), match.node);
    begin = at = match.end;
  }
  return [...found, toText(text.slice(begin))];
}

function firstMatch(text, at, matchers) {
  for (const matcher of matchers) {
    const match = matcher(text, at);
    if (match) return match;
  }
  return null;
}

const codeAt = (toText) => (text, at) => {
  const code = sticky(/`([^`\n]+)`/y, text, at);
  return code && { node: el("code", {}, toText(code[1])), end: at + code[0].length };
};

function emojiAt(text, at) {
  const short = sticky(/:([a-z0-9_+-]+):/y, text, at);
  return short && isEmoji(short[1]) ? { node: emoji(short[1]), end: at + short[0].length } : null;
}

function sticky(pattern, text, at) {
  pattern.lastIndex = at;
  return pattern.exec(text);
}

/** A pair of markers around text on one line, not inside words: 2*3*4 and snake_case stay as they are. */
const styleAt = (marker, tag, inner) => (text, at) => {
  if (!text.startsWith(marker, at) || /\w/.test(text[at - 1] ?? "")) return null;
  const start = at + marker.length;
  const first = text[start] ?? " ";
  const end = /\s/.test(first) || first === marker[0] ? -1 : closing(text, start, marker);
  return end < 0 ? null : { node: el(tag, {}, ...inner(text.slice(start, end))), end: end + marker.length };
};

function closing(text, from, marker) {
  const line = text.slice(from).split("\n", 1)[0];
  const masked = line.replace(/`[^`]+`|<[^<>]+>/g, (hidden) => "\0".repeat(hidden.length));
  for (let at = masked.indexOf(marker); at >= 0; at = masked.indexOf(marker, at + 1)) {
    const after = masked[at + marker.length] ?? " ";
    if (at > 0 && !/\s/.test(masked[at - 1]) && !/\w/.test(after) && after !== marker[0]) return from + at;
  }
  return -1;
}

function entityAt(text, at, names) {
  const entity = sticky(/<([^<>\n]+)>/y, text, at);
  const node = entity && entityNode(entity[1], names);
  return node ? { node, end: at + entity[0].length } : null;
}

function entityNode(inside, names) {
  const [target, label] = cut(inside, "|");
  if (/^@[UW][A-Z0-9]+$/.test(target)) return userMention(target.slice(1), names);
  if (/^#C[A-Z0-9]+$/.test(target)) return chip(`#${names.channel(target.slice(1)) ?? label ?? target.slice(1)}`);
  if (/^!subteam\^S[A-Z0-9]+$/.test(target)) return groupMention(target.slice(9), names);
  if (/^!(channel|here|everyone)$/.test(target)) return broadcast(target.slice(1));
  if (target.startsWith("!date^")) return dateEntity(target, label ?? "", names);
  return linkNode(decode(target), label === undefined ? undefined : decode(label));
}

function cut(text, separator) {
  const at = text.indexOf(separator);
  return at < 0 ? [text, undefined] : [text.slice(0, at), text.slice(at + 1)];
}

// -- mentions, links, dates ------------------------------------------------------------------------------------------

const chip = (text, mine = false) => el("span", { class: mine ? "mention mine" : "mention" }, text);

export const userMention = (id, names) => chip(`@${names.user(id) ?? id}`, id === names.me);
export const groupMention = (id, names) => chip(`@${names.group(id) ?? id}`);
export const channelMention = (id, names) => chip(`#${names.channel(id) ?? id}`);
export const broadcast = (range) => chip(`@${range}`, true);

/** A link that can do nothing but open a page; null for any other scheme. */
export function linkNode(url, label = url) {
  if (!/^(https?:\/\/|mailto:)/i.test(url)) return null;
  return el("a", { href: url, target: "_blank", rel: "noopener noreferrer" }, label || url);
}

function dateEntity(target, fallback, names) {
  const [, seconds, format, url] = target.split("^");
  return dateNode(Number(seconds), decode(format ?? ""), decode(fallback), names, url && decode(url));
}

/** A moment in the reader's own time zone, in Slack's date tokens; the fallback where it is no moment. */
export function dateNode(seconds, format, fallback, names, url = "") {
  const moment = new Date(seconds * 1000);
  if (!format || Number.isNaN(moment.getTime())) return document.createTextNode(fallback);
  const text = format.replace(/\{(\w+)\}/g, (token, name) => DATES[name]?.(moment, names.now()) ?? token);
  const node = el("time", { datetime: moment.toISOString(), title: fallback || moment.toString() }, text);
  const link = url && linkNode(url, "");
  if (!link) return node;
  link.replaceChildren(node);
  return link;
}

const written = (options) => (moment) => moment.toLocaleString(undefined, options);
const relative = (write) => (moment, now) => {
  const days = dayNumber(moment) - dayNumber(new Date(now * 1000));
  return { 0: "today", "-1": "yesterday", 1: "tomorrow" }[days] ?? write(moment);
};
const dayNumber = (moment) => Math.round(Date.UTC(moment.getFullYear(), moment.getMonth(), moment.getDate()) / 86400000);

const DATE = written({ year: "numeric", month: "long", day: "numeric" });
const DATE_SHORT = written({ year: "numeric", month: "short", day: "numeric" });
const DATE_LONG = written({ weekday: "long", year: "numeric", month: "long", day: "numeric" });
const DATES = {
  date_num: written({ year: "numeric", month: "2-digit", day: "2-digit" }),
  date: DATE,
  date_short: DATE_SHORT,
  date_long: DATE_LONG,
  date_pretty: relative(DATE),
  date_short_pretty: relative(DATE_SHORT),
  date_long_pretty: relative(DATE_LONG),
  time: written({ hour: "2-digit", minute: "2-digit", hourCycle: "h23" }),
  time_secs: written({ hour: "2-digit", minute: "2-digit", second: "2-digit", hourCycle: "h23" }),
  ago: (moment, now) => ago(now - moment.getTime() / 1000),
};

function ago(seconds) {
  const minutes = Math.round(Math.abs(seconds) / 60);
  const amount = minutes < 60 ? `${minutes} min` : `${Math.round(minutes / 60)} h`;
  return seconds >= 0 ? `${amount} ago` : `in ${amount}`;
}

// -- Markdown --------------------------------------------------------------------------------------------------------

function paragraphs(text, names) {
  return text
    .split(/\n\s*\n/)
    .filter((part) => part.trim())
    .flatMap((part) => grouped(part.trim().split("\n"), kindOfLine).map(([kind, lines]) => MARKDOWN[kind](lines, names)));
}

function kindOfLine(line) {
  if (/^#{1,6} /.test(line)) return "heading";
  if (/^\s*[-*+] /.test(line)) return "bullets";
  if (/^\s*\d+[.)] /.test(line)) return "numbers";
  if (/^> ?/.test(line)) return "quote";
  return "paragraph";
}

const stripped = (lines, pattern) => lines.map((line) => line.replace(pattern, ""));
const listItems = (lines, pattern, names) => stripped(lines, pattern).map((line) => el("li", {}, ...words(line, names)));

const MARKDOWN = {
  heading: (lines, names) => el("div", {}, ...stripped(lines, /^#+ /).map((line) => el("h4", {}, ...words(line, names)))),
  bullets: (lines, names) => el("ul", {}, ...listItems(lines, /^\s*[-*+] /, names)),
  numbers: (lines, names) => el("ol", {}, ...listItems(lines, /^\s*\d+[.)] /, names)),
  quote: (lines, names) => el("blockquote", {}, ...words(stripped(lines, /^> ?/).join("\n"), names)),
  paragraph: (lines, names) => el("p", {}, ...words(lines.join("\n"), names)),
};

function words(text, names) {
  const inner = (part) => words(part, names);
  const matchers = [
    codeAt((code) => code),
    linkAt,
    (whole, at) => entityAt(whole, at, names),
    emojiAt,
    styleAt("**", "strong", inner),
    styleAt("__", "strong", inner),
    styleAt("~~", "del", inner),
    styleAt("*", "em", inner),
    styleAt("_", "em", inner),
  ];
  return scan(text, matchers, decode);
}

function linkAt(text, at) {
  const link = sticky(/\[([^\]\n]+)\]\(([^)\s]+)\)/y, text, at);
  const node = link && linkNode(link[2], link[1]);
  return node ? { node, end: at + link[0].length } : null;
}
