// Without this file :x: and :white_check_mark: would read as words where the eye looks for a mark.

import { el } from "./dom.js";

const SVG = "http://www.w3.org/2000/svg";

// Marks of a verdict are drawn, so that they look alike with and without an emoji font; 20 by 20, stroked.
const DRAWN = {
  x: ["bad", "M5 5 L15 15 M15 5 L5 15"],
  white_check_mark: ["good", "M4 10.5 L8.5 15 L16 5.5"],
  heavy_check_mark: ["good", "M4 10.5 L8.5 15 L16 5.5"],
  warning: ["warn", "M10 2.5 L18 17 L2 17 Z M10 8 L10 12 M10 14.4 L10 14.6"],
  grey_question: ["dim", "M6.5 7 A3.5 3.5 0 1 1 10 10.8 L10 12.6 M10 16 L10 16.2"],
  question: ["bad", "M6.5 7 A3.5 3.5 0 1 1 10 10.8 L10 12.6 M10 16 L10 16.2"],
  no_entry_sign: ["bad", "M10 2.5 A7.5 7.5 0 1 1 9.99 2.5 M4.8 4.8 L15.2 15.2"],
  hourglass_flowing_sand: ["warn", "M5 2.5 L15 2.5 M5 17.5 L15 17.5 M6 2.5 C6 8 14 12 14 17.5 M14 2.5 C14 8 6 12 6 17.5"],
  hourglass: ["warn", "M5 2.5 L15 2.5 M5 17.5 L15 17.5 M6 2.5 C6 8 14 12 14 17.5 M14 2.5 C14 8 6 12 6 17.5"],
  alarm_clock: ["dim", "M10 4 A6.5 6.5 0 1 1 9.99 4 M10 7 L10 10.5 L12.5 12 M2.5 5 L5.5 2.5 M17.5 5 L14.5 2.5"],
  gear: ["dim", "M10 6.5 A3.5 3.5 0 1 1 9.99 6.5 M10 2 L10 4.5 M10 15.5 L10 18 M2 10 L4.5 10 M15.5 10 L18 10 M4.3 4.3 L6.1 6.1 M13.9 13.9 L15.7 15.7 M4.3 15.7 L6.1 13.9 M13.9 6.1 L15.7 4.3"],
  mag: ["dim", "M8.5 3 A5.5 5.5 0 1 1 8.49 3 M12.6 12.6 L17.5 17.5"],
  red_circle: ["bad filled", "M10 4 A6 6 0 1 1 9.99 4"],
  large_green_circle: ["good filled", "M10 4 A6 6 0 1 1 9.99 4"],
};

const GLYPHS = {
  "+1": "👍",
  "-1": "👎",
  arrow_right: "➡",
  bell: "🔔",
  bulb: "💡",
  eyes: "👀",
  fire: "🔥",
  hammer_and_wrench: "🛠",
  heart: "❤",
  information_source: "ℹ",
  link: "🔗",
  lock: "🔒",
  memo: "📝",
  raised_hands: "🙌",
  robot_face: "🤖",
  rocket: "🚀",
  rotating_light: "🚨",
  slightly_smiling_face: "🙂",
  smile: "😄",
  tada: "🎉",
  thumbsup: "👍",
  wave: "👋",
  wrench: "🔧",
};

export const isEmoji = (name) => Object.hasOwn(DRAWN, name) || Object.hasOwn(GLYPHS, name);

/** An emoji by its short name; `unicode` (hex, dash separated) is used for names not known here. */
export function emoji(name, unicode = "") {
  if (Object.hasOwn(DRAWN, name)) return drawn(name, ...DRAWN[name]);
  const glyph = Object.hasOwn(GLYPHS, name) ? GLYPHS[name] : fromUnicode(unicode);
  return glyph ? el("span", { class: "emoji", role: "img", "aria-label": words(name) }, glyph) : document.createTextNode(`:${name}:`);
}

const words = (name) => name.replaceAll("_", " ");

function fromUnicode(unicode) {
  if (!/^[0-9a-f]{1,6}(-[0-9a-f]{1,6})*$/i.test(unicode)) return "";
  const points = unicode.split("-").map((part) => Number.parseInt(part, 16));
  return points.every((point) => point <= 0x10ffff) ? String.fromCodePoint(...points) : "";
}

function drawn(name, tone, path) {
  const svg = document.createElementNS(SVG, "svg");
  for (const [attribute, value] of Object.entries({ viewBox: "0 0 20 20", class: `mark ${tone}`, role: "img", "aria-label": words(name) })) {
    svg.setAttribute(attribute, value);
  }
  const line = document.createElementNS(SVG, "path");
  line.setAttribute("d", path);
  svg.append(line);
  return svg;
}
